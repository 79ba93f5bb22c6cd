"""The healthy data of the exam, in memory as rows and on disk as a user would have it.

Four sets: `digits` and `dates` are embedded, `fsdd` and `multi30k` lie in a folder. A seed draws the rows, so that a
set of another seed holds other examples.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from sourcewise.data.readers.dates import read_dates
from sourcewise.data.readers.digits import read_digits

EMBEDDED = ("digits", "dates")
VALID = 60  # examples
FILES = {"fsdd": "fsdd/manifests/{}.tsv", "multi30k": "multi30k/{}.tsv"}


class NotThere(Exception):
    """The data of a question is not on this machine."""


@dataclass
class Row:
    """One example: a text, or a matrix (frames, dims) or the file of one; `frames` as the manifest says."""

    id: str
    source: str
    target: str
    matrix: np.ndarray | Path | None = None
    frames: int | None = None

    @property
    def features(self) -> np.ndarray:
        """A copy of the matrix, float32."""
        assert self.matrix is not None
        matrix = np.load(self.matrix) if isinstance(self.matrix, Path) else self.matrix
        return matrix.astype(np.float32)


@dataclass
class Material:
    """The rows of a training and of its validation."""

    train: list[Row]
    valid: list[Row] = field(default_factory=list)

    @property
    def of_features(self) -> bool:
        """Whether the sources are matrices."""
        return self.train[0].matrix is not None


def draw(name: str, size: int, seed: int, root: Path | None) -> Material:
    """`size` rows of a set to train on, `VALID` others. Raises NotThere where the set is not under `root`."""
    rng = np.random.default_rng([40, seed])

    def some(rows: Sequence[Row], count: int) -> list[Row]:
        return [replace(rows[i]) for i in np.sort(rng.permutation(len(rows))[:count])]

    return Material(some(_rows(name, "train", root), size), some(_rows(name, "valid", root), VALID))


@lru_cache(maxsize=8)
def _rows(name: str, split: str, root: Path | None) -> list[Row]:
    if name == "digits":
        digits = read_digits(split)
        return [Row(e.id, "", e.target, digits.features(i), e.frames) for i, e in enumerate(digits)]
    if name == "dates":
        return [Row(e.id, e.source, e.target) for e in read_dates(split)]
    file = None if root is None else root / FILES[name].format(split)
    if file is None or not file.is_file():
        raise NotThere(f"{name} is not there: give --data the folder that holds {FILES[name].format(split)}")
    with file.open(encoding="utf-8", newline="") as lines:
        table = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    if name == "multi30k":
        pairs = [(line["source"].lower(), line["target"].lower()) for line in table]
        return [Row(f"{split}_{i:05d}", *pair) for i, pair in enumerate(pairs)]
    folder = file.parents[1] / "features" / split
    return [Row(e["id"], "", e["text"], folder / f"{e['id']}.npy", int(e["n_frames"])) for e in table]


def write(material: Material, folder: Path) -> dict[str, object]:
    """Put the rows into files; gives the options of a recipe that reads them."""
    options: dict[str, object] = {}
    for split, rows in (("train", material.train), ("valid", material.valid)):
        if material.of_features:
            options |= _write_features(split, rows, folder)
        else:
            lines = [f"{row.source}\t{row.target}\n" for row in rows]
            (folder / f"{split}.tsv").write_text("source\ttarget\n" + "".join(lines), encoding="utf-8")
            options |= {f"data.{split}.pairs": str(folder / f"{split}.tsv"), f"data.{split}.quoting": "text"}
    return options


def _write_features(split: str, rows: Sequence[Row], folder: Path) -> dict[str, object]:
    """A manifest, and a folder of matrices; those that are files already are linked to."""
    features = folder / "features" / split
    features.mkdir(parents=True)
    for row in rows:
        if isinstance(row.matrix, Path):
            (features / f"{row.id}.npy").symlink_to(row.matrix.resolve())
        elif row.matrix is not None:
            np.save(features / f"{row.id}.npy", row.matrix)
    lines = [f"{row.id}\t{'' if row.frames is None else row.frames}\t{row.target}\n" for row in rows]
    (folder / f"{split}.tsv").write_text("id\tn_frames\ttext\n" + "".join(lines), encoding="utf-8")
    return {f"data.{split}.manifest": str(folder / f"{split}.tsv"), f"data.{split}.features": str(features)}
