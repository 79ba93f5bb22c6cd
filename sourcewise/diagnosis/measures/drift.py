"""Whether batches that come one after another are more alike than those that come far apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sourcewise.diagnosis.coming import Batched

SHUFFLED = 200  # orders that are tried beside the one in which batches came
SEED = 3
HALF = 0.5  # of the variance of all
WINDOWS, FALL = 10, 0.5  # of all batches; of what a figure has risen by


class Drift(NamedTuple):
    """How far the batches differ, over what shuffled examples would; how alike neighbours are (1: wholly), and the most
    that another order of the same batches makes of that.
    """

    apart: float
    neighbours: float
    by_chance: float


def drift_of(batches: Sequence[Batched], figures: slice, least: float) -> Drift | None:
    """Of those figures in which batches differ `least` times as much as by chance or more; None where there is none.

    Which figures these are does not depend on the order, so that another order is a fair comparison.
    """
    sizes = np.array([each.size for each in batches], dtype=np.float64)
    sums = np.array([each.sums[figures] for each in batches], dtype=np.float64)
    squares = np.array([each.squares[figures] for each in batches], dtype=np.float64).sum(0)
    mean = sums.sum(0) / sizes.sum()
    variance = squares / sizes.sum() - mean**2
    means = sums / sizes[:, None] - mean
    moving = variance > 1e-12
    if not moving.any():
        return None
    apart = (sizes[:, None] * means[:, moving] ** 2).mean(0) / variance[moving]
    chosen = apart >= least
    if not chosen.any():
        return None
    scaled = (means[:, moving] / np.sqrt(variance[moving]))[:, chosen]
    draw = np.random.default_rng(SEED)
    others = [_neighbours(scaled[draw.permutation(len(scaled))]) for _ in range(SHUFFLED)]
    return Drift(float(apart[chosen].max()), _neighbours(scaled), max(others))


def only_rises(batches: Sequence[Batched], figures: slice) -> bool:
    """Whether the largest of these figures but rises, from batch to batch, and hardly ever falls.

    It is that of the middle of a few batches, which may fall by half of what it has risen by.
    """
    means = np.array([each.sums[figures].max() / each.size for each in batches])
    window = max(1, len(means) // WINDOWS)
    middles = np.array([np.median(part) for part in np.array_split(means, max(1, len(means) // window))])
    fall = float((np.maximum.accumulate(middles) - middles).max())
    return fall <= FALL * float(middles.max() - middles[0])


def as_varied(some: Sequence[Batched], batches: Sequence[Batched], figures: slice) -> bool:
    """Whether examples of some of the batches vary in these figures by half as much as those of all, or more."""
    one, other = (_variance(each, figures) for each in (some, batches))
    return bool((one >= HALF * other).all())


def _variance(batches: Sequence[Batched], figures: slice) -> np.ndarray:
    """(figures,) of the examples."""
    size = sum(each.size for each in batches)
    sums = np.array([each.sums[figures] for each in batches], dtype=np.float64).sum(0)
    squares = np.array([each.squares[figures] for each in batches], dtype=np.float64).sum(0)
    return np.asarray(squares / size - (sums / size) ** 2)


def _neighbours(scaled: np.ndarray) -> float:
    """The correlation of each batch with the next, over all figures."""
    return float((scaled[:-1] * scaled[1:]).sum() / (scaled**2).sum())
