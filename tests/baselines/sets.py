"""Sets for the tests of baselines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sourcewise.data.examples import Dataset, Example, Task

WORDS = tuple(f"w{i}" for i in range(60))


def texts(pairs: Sequence[tuple[str, str]], name: str = "table", metric: str | None = None) -> Dataset:
    """A set of text pairs."""
    rows = [Example(str(i), target, source) for i, (source, target) in enumerate(pairs)]
    return Dataset(rows, name, task=Task(name, metric))


def clips(matrices: Sequence[np.ndarray], targets: Sequence[str], name: str = "clips") -> Dataset:
    """A set of feature matrices."""
    rows = [Example(str(i), t, frames=len(m)) for i, (m, t) in enumerate(zip(matrices, targets, strict=True))]
    return Dataset(rows, name, matrices[0].shape[1], lambda i: np.asarray(matrices[i], dtype=np.float32).copy())


def sentences(size: int, seed: int = 0, longest: int = 12) -> list[list[str]]:
    """Sentences of frequent and rare words."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, len(WORDS) + 1)
    weights /= weights.sum()
    return [list(rng.choice(WORDS, rng.integers(4, longest), p=weights)) for _ in range(size)]


def translations(size: int, seed: int = 0) -> list[tuple[str, str]]:
    """Sentences, and the same in another language, word for word."""
    return [(" ".join(s), " ".join(w.replace("w", "o") for w in s)) for s in sentences(size, seed)]
