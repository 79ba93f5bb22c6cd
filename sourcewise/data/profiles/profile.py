"""The profile of the training sets of a run: what it holds, how it is taken, and its file."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from sourcewise.data.examples import Dataset
from sourcewise.data.profiles.features import FeatureProfile, profile_features
from sourcewise.data.profiles.texts import TextProfile, profile_texts
from sourcewise.data.sequences import evenly
from sourcewise.errors import RequestError
from sourcewise.runtime.files import write_atomically

PROFILE_FILE = "profile.npz"  # in a run folder
VERSION = 1
LOOKED_AT = 20_000  # examples of a set on disk: twice what the look of texts is taken from
LONG_ENOUGH = 3  # characters of a target that a source may hold


NAMED = ("name", "task", "answered")


@dataclass(frozen=True, slots=True)
class Profile:
    """What one set looks like: its targets, its source texts or prompts, and its features, as far as it has these."""

    name: str
    task: str
    targets: TextProfile
    sources: TextProfile | None = None
    features: FeatureProfile | None = None
    answered: float = 0.0  # share of examples whose source text holds their target
    made: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # stream → how its features were made


def profile_of(dataset: Dataset) -> Profile:
    """The profile of a set with at least one example. Raises RequestError where a matrix cannot be read.

    Of a set on disk it is that of `LOOKED_AT` examples, evenly spread.
    """
    name, task = dataset.name, dataset.task.name
    if dataset.kept and len(dataset) > LOOKED_AT:
        dataset = dataset.select(evenly(len(dataset), LOOKED_AT).tolist())
    sources = [example.source for example in dataset]
    told = [len(each.target.strip()) >= LONG_ENOUGH and each.target.strip() in each.source for each in dataset]
    return Profile(
        name,
        task,
        profile_texts([example.target for example in dataset]),
        profile_texts(sources) if any(sources) else None,
        profile_features(dataset) if dataset.dims else None,
        sum(told) / len(told),
        dataset.made,
    )


def write_profiles(profiles: Sequence[Profile], path: Path) -> None:
    """Write profiles into one file, atomically. Raises RequestError where it cannot be written."""
    arrays: dict[str, np.ndarray] = {}
    trees = []
    for i, profile in enumerate(profiles):
        tree: dict[str, Any] = {name: getattr(profile, name) for name in (*NAMED, "made")}
        for side in ("targets", "sources"):
            texts: TextProfile | None = getattr(profile, side)
            if texts is not None:
                tree[side] = texts.to_tree()
                arrays[f"{i}.{side}"] = texts.trigrams
        if profile.features is not None:
            known = asdict(profile.features)
            tree["features"] = {key: value for key, value in known.items() if not isinstance(value, np.ndarray)}
            arrays |= {f"{i}.{key}": value for key, value in known.items() if isinstance(value, np.ndarray)}
        trees.append(tree)
    text = json.dumps({"version": VERSION, "profiles": trees}, ensure_ascii=False)
    file = io.BytesIO()
    arrays["json"] = np.frombuffer(text.encode("utf-8", "surrogatepass"), dtype=np.uint8)
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    write_atomically(path, file.getvalue())


def read_profiles(path: Path) -> list[Profile]:
    """The profiles of a run; none without the file, or from a file of another version.

    Raises RequestError for a damaged file.
    """
    if not path.is_file():
        return []
    try:
        with np.load(path, allow_pickle=False) as arrays:
            tree = json.loads(arrays["json"].tobytes().decode("utf-8", "surrogatepass"))
            if tree["version"] != VERSION:
                return []
            return [_read(each, i, arrays) for i, each in enumerate(tree["profiles"])]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise RequestError(f"{path}: not what a training writes ({error}); delete it, it is not needed") from None


def _read(tree: dict[str, Any], i: int, arrays: Any) -> Profile:
    texts = {
        side: TextProfile(trigrams=arrays[f"{i}.{side}"], **tree[side]) if side in tree else None
        for side in ("targets", "sources")
    }
    features = None
    if "features" in tree:
        names = [each.name for each in fields(FeatureProfile)]
        features = FeatureProfile(
            **{n: tree["features"].get(n) if n in tree["features"] else arrays[f"{i}.{n}"] for n in names}
        )
    targets = texts["targets"]
    if targets is None:
        raise KeyError("targets")
    of_it = {name: tree[name] for name in NAMED}
    made = tree.get("made", {})  # files of before have none
    return Profile(targets=targets, sources=texts["sources"], features=features, made=made, **of_it)


def like(profiles: Sequence[Profile], dataset: Dataset) -> Profile | None:
    """The profile that a set is to be held against: that of its task, or the only one; None if there is none."""
    fitting = [each for each in profiles if (each.features is not None) == bool(dataset.dims)]
    named = [each for each in fitting if each.task == dataset.task.name and each.task]
    chosen = named or fitting
    return chosen[0] if len(chosen) == 1 else None
