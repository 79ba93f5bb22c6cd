"""The embedded set `digits`: rows of scanned handwritten digits → the digits in words.

scikit-learn ships 1,797 real scans of 8 × 8 points. An image is eight frames of eight values, its columns from left to
right; three to six images make a source. Splits have disjoint images.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from sourcewise.data.examples import Dataset, Example
from sourcewise.errors import RequestError

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIZES = {"train": 6000, "valid": 200, "test": 400}  # sequences
IMAGES = {"test": 300, "valid": 200, "train": None}  # number of scans, taken in this order; None: the rest
SHORTEST, LONGEST = 3, 6  # images per sequence


def read_digits(split: str = "train", limit: int | None = None) -> Dataset:
    """Sequences of (24 to 48 frames) × 8 dims in 0..1, and targets such as "four zero seven".

    Every call gives the same sequences. Raises RequestError for an unknown split, or if scikit-learn is not installed.
    """
    if split not in SIZES:
        raise RequestError(f"digits: no split {split!r}; it has: {', '.join(SIZES)}")
    images, labels = _load()
    chosen = _images_of(split, len(images))
    rng = np.random.default_rng([8, list(SIZES).index(split)])
    matrices, examples = [], []
    for i in range(SIZES[split] if limit is None else min(limit, SIZES[split])):
        row = rng.choice(chosen, rng.integers(SHORTEST, LONGEST + 1))
        matrices.append(np.concatenate([images[k].T for k in row]))  # columns become frames
        target = " ".join(WORDS[labels[k]] for k in row)
        examples.append(Example(f"{split}_{i:05d}", target, frames=len(matrices[-1]), where=f"digits {split}:{i + 1}"))
    return Dataset(examples, name=f"digits {split}", dims=8, read=lambda i: matrices[i].copy())


def _images_of(split: str, count: int) -> np.ndarray:
    order = np.random.default_rng(8).permutation(count)
    start = 0
    for name, size in IMAGES.items():
        stop = count if size is None else start + size
        if name == split:
            return order[start:stop]
        start = stop
    raise KeyError(split)


def _load() -> tuple[np.ndarray, np.ndarray]:
    """(images, 8 rows, 8 columns) float32 in 0..1, and (images,) labels.

    They are read from scikit-learn's own file, since the import of `sklearn.datasets.load_digits` takes a second.
    """
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise RequestError("digits: needs scikit-learn; pip install 'sourcewise[demo]'")
    scans = Path(found.origin).with_name("datasets") / "data" / "digits.csv.gz"
    table = np.loadtxt(scans, delimiter=",", dtype=np.uint8)
    return table[:, :-1].reshape(-1, 8, 8).astype(np.float32) / 16, table[:, -1].astype(int)
