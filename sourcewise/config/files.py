"""Finds, reads, overrides, checks and writes recipes, in files and on the command line."""

from __future__ import annotations

import copy
import difflib
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from sourcewise.config import Recipe
from sourcewise.config import messages as schema
from sourcewise.errors import RequestError


def load_recipe(recipe: str | Path | None = None, overrides: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe, set `{"section.key": value}` overrides, and check all options.

    `recipe` is a YAML file, a run folder, or the name of a recipe shipped with sourcewise.
    Raises RequestError that names the file and the key.
    """
    tree, where = read_tree(recipe, overrides)
    if "compare" in tree:
        raise RequestError(f"{where}: compares several trainings; run it with: sourcewise compare {recipe}")
    return checked(tree, where, overrides)


def read_tree(recipe: str | Path | None, overrides: dict[str, Any] | None = None) -> tuple[dict[str, Any], str]:
    """A recipe as an unchecked tree of keys with overrides, and its file's name. Raises RequestError."""
    tree: dict[str, Any] = {}
    where = "options"
    if recipe is not None:
        path = find_recipe(recipe)
        tree, where = _read_yaml(path), str(path)
        given = Path(recipe).expanduser()
        if given.is_dir():  # a run's folder may have been moved since its recipe was written
            folder = given.resolve()
            tree |= {"name": folder.name, "output": str(given.parent if given.name else folder.parent)}
    for dotted, value in (overrides or {}).items():
        set_option(tree, str(dotted), value)
    return tree, where


def checked(tree: dict[str, Any], where: str, overrides: dict[str, Any] | None = None) -> Recipe:
    """The checked recipe of a tree of keys. Raises RequestError that names the first wrong key."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RequestError(schema.explain(error, Recipe, where, overrides or {})) from None


def find_recipe(recipe: str | Path) -> Path:
    """File of a recipe: a path, the recipe.yaml of a run folder, or the name of a shipped one. Raises RequestError."""
    path = Path(recipe).expanduser()
    if (path / "recipe.yaml").is_file():
        return path / "recipe.yaml"
    if path.is_file():
        return path
    shipped = shipped_recipes()
    if str(recipe) in shipped:
        return shipped[str(recipe)]
    if path.is_dir():
        raise RequestError(
            f"{recipe}: no such recipe; a folder without recipe.yaml is no run; --model {recipe} takes its weights"
        )
    near = difflib.get_close_matches(path.stem, shipped, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else f"a file, a run folder, or one of {', '.join(shipped)}"
    raise RequestError(f"{recipe}: no such recipe; {hint}")


def is_recipe(name: str | Path) -> bool:
    """Whether a name means a recipe, not a model: a YAML file, or a shipped recipe where no such path exists."""
    path = Path(name)
    return path.suffix.lower() in (".yaml", ".yml") or (not path.exists() and str(name) in shipped_recipes())


def shipped_recipes() -> dict[str, Path]:
    """Name → file of the shipped recipes, comparisons last; in a checkout they lie beside the package."""
    package = Path(__file__).parents[1]
    folder = next((f for f in (package / "recipes", package.parent / "recipes") if f.is_dir()), None)
    found = sorted(folder.glob("*.yaml"), key=lambda path: (path.stem.startswith("compare_"), path)) if folder else []
    return {path.stem: path for path in found}


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write the complete recipe, including defaults."""
    path.write_text(yaml.safe_dump(recipe.model_dump(), sort_keys=False, allow_unicode=True), encoding="utf-8")


def parse_overrides(words: list[str]) -> dict[str, Any]:
    """`["--train.steps", "100", "--seed=3"]` → `{"train.steps": 100, "seed": 3}`; values are YAML, or plain text."""
    overrides: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not all(key.split(".")):
            raise RequestError(f"{word}: not understood; options look like --train.steps 100")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise RequestError(f"--{key}: a value is missing")
            value = rest.pop(0)
        key = key.replace("-", "_")
        overrides[key] = _option_value(key, value)
    return overrides


def options() -> list[tuple[str, str, str, str]]:
    """(dotted key, type, default, description) of every option, for help and docs."""
    return schema.rows(Recipe)


class _Loader(yaml.SafeLoader):
    """YAML loader that reads 5e-5 as a number and refuses duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else "")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


@lru_cache(maxsize=16)
def _parsed(text: str) -> Any:
    """A YAML text as a tree, which nobody may change; a run's recipe is asked for many times."""
    return yaml.load(text, _Loader)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = copy.deepcopy(_parsed(path.read_text(encoding="utf-8")))
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error)
        raise RequestError(f"{where}: not a recipe's YAML: {' '.join(problem.split())}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise RequestError(f"{path}: a recipe is a YAML mapping with sections {', '.join(Recipe.model_fields)}")
    return {str(key): value for key, value in tree.items()}


def _option_value(key: str, value: str) -> Any:
    """Value of an option's word: unchanged for options of text, else read as YAML."""
    field = schema.field_at(Recipe, key.split("."))
    plain = schema.plain_type(field.annotation) if field else None
    if key == "model" or plain is str:
        return None if field and field.default is None and value in ("", "null") else value
    try:
        parsed = yaml.load(value, _Loader)
    except yaml.YAMLError:
        return value
    return parsed if isinstance(parsed, (bool, int, float, list, dict, type(None))) else value


def set_option(tree: dict[str, Any], dotted: str, value: Any) -> None:
    """Set a dotted key of a tree in place. Raises RequestError where a part of the key is not a section."""
    *sections, key = dotted.split(".")
    node = tree
    for depth, section in enumerate(sections):
        child = node.setdefault(section, {})
        if child is None:
            child = node[section] = {}
        if isinstance(child, str) and depth == 0 and section == "model":  # the shorthand `model: NAME`
            child = node[section] = {"weights": child}
        if isinstance(child, list):
            raise RequestError(f"--{dotted}: {section} is a list in the recipe; edit it there")
        if not isinstance(child, dict):
            raise RequestError(f"--{dotted}: {'.'.join(sections[: depth + 1])} is not a section")
        node = child
    if key == "model" and isinstance(value, str) and isinstance(node.get(key), dict):
        node[key] = {**node[key], "weights": value}
    else:
        node[key] = value
