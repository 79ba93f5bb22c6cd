"""The plan of a comparison: variants of a recipe × seeds.

```yaml
name: bridges
data: …                # what all variants share, as in any recipe
compare:
  seeds: [0, 1, 2]
  variants:
    projection: {model.bridge.kind: projection}      # the others are compared with the first one
    perceiver: {model.bridge.kind: perceiver, model.bridge.latents: 32}
```
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sourcewise.config import CompareConfig, DatasetConfig, Options, Recipe
from sourcewise.config import messages as schema
from sourcewise.config.files import checked, read_tree, set_option
from sourcewise.errors import RequestError

SHARED = ("name", "output", "seed", "compare", "evaluation")  # keys that no variant may set


class _Root(Options):
    """Root section, so that messages name `compare.seeds`."""

    compare: CompareConfig


@dataclass(frozen=True, slots=True)
class Planned:
    """One training of a comparison: a variant with a seed."""

    variant: str
    seed: int
    recipe: Recipe

    @property
    def name(self) -> str:
        """Name of the run folder."""
        return self.recipe.name

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.recipe.output).expanduser() / self.recipe.name


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison: its variants, the deciding figure, and all planned trainings."""

    name: str
    folder: Path  # of the table; the runs are in it
    metric: str  # key of a figure
    changes: dict[str, dict[str, Any]]  # variant → the dotted keys it sets
    planned: list[Planned]  # all variants with the first seed, then all with the next

    @property
    def variants(self) -> list[str]:
        """Names of the variants; the others are compared with the first."""
        return list(self.changes)

    def named(self, name: str) -> Planned:
        """The training of this name. Raises RequestError if there is none."""
        names = [each.name for each in self.planned]
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(names[:20])}"
            raise RequestError(f"--only {name}: no such training in {self.name}; {hint}")
        return self.planned[names.index(name)]

    def of(self, variant: str) -> list[Planned]:
        """The trainings of a variant."""
        return [each for each in self.planned if each.variant == variant]


def load_comparison(recipe: str | Path, overrides: dict[str, Any] | None = None) -> Comparison:
    """Read a recipe with a `compare` section and check the recipes of all its trainings.

    `overrides` set shared keys. Raises RequestError that names the file, the variant and the key.
    """
    overrides = overrides or {}
    tree, where = read_tree(recipe, overrides)
    section = tree.pop("compare", None)
    if section is None:
        raise RequestError(f"{where}: has no compare section; give it compare.variants, or train it: sourcewise train")
    try:
        compare = _Root.model_validate({"compare": section}).compare
    except ValidationError as error:
        raise RequestError(schema.explain(error, _Root, where)) from None
    shared = checked(tree, where, overrides)
    changes = {name: dict(_dotted(keys or {}, f"{where}: variant {name}")) for name, keys in compare.variants.items()}
    _check_overrides(overrides, changes)
    folder = Path(shared.output).expanduser() / shared.name
    recipes = {name: _variant(tree, keys, f"{where}: variant {name}") for name, keys in changes.items()}
    metric = compare.metric or shared.train.best
    common = {"output": str(folder), "evaluation": shared.evaluation.with_metric(metric)}
    planned = [
        Planned(name, seed, each.model_copy(update={"name": f"{name}-{seed}", "seed": seed, **common}))
        for seed in compare.seeds
        for name, each in recipes.items()
    ]
    return Comparison(shared.name, folder, metric, changes, planned)


def _variant(tree: dict[str, Any], changes: dict[str, Any], where: str) -> Recipe:
    """The recipe of a variant. Raises RequestError that names the variant."""
    copied = deepcopy(tree)
    for key, value in changes.items():
        try:
            set_option(copied, key, value)
        except RequestError as error:
            raise RequestError(f"{where}: {str(error).removeprefix('--')}") from None
    return checked(copied, where)


def _dotted(keys: dict[str, Any], where: str, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """`{"model": {"bridge.kind": "perceiver"}}` → ("model.bridge.kind", "perceiver"); a data set is one value."""
    for key, value in keys.items():
        place = (*path, *key.split("."))
        if place[0] in SHARED:
            raise RequestError(f"{where}: {place[0]} is of the whole comparison; a variant sets keys of data, model, …")
        section = schema.section_at(Recipe, list(place))
        if isinstance(value, dict) and section is not None and section is not DatasetConfig:
            yield from _dotted(value, where, place)
        else:
            yield ".".join(place), value


def _check_overrides(overrides: dict[str, Any], changes: dict[str, dict[str, Any]]) -> None:
    """Raises RequestError for an option that a variant also sets."""
    for option in overrides:
        for variant, keys in changes.items():
            key = next((k for k in keys if f"{k}.".startswith(f"{option}.") or f"{option}.".startswith(f"{k}.")), None)
            if key is not None:
                raise RequestError(f"--{option}: variant {variant} sets {key}; change it in the recipe")
