"""How far the rows of two sides go together, against all ways to pair them: exact moments, nothing is drawn.

A side of n examples is a kernel, (n, n) numbers of how alike two examples are. With centred kernels K and L the sum of
their products is the Hilbert–Schmidt independence criterion (Gretton et al. 2005). Its mean and variance over all
permutations of one side are known in closed form (Kazi-Aoual et al. 1995), and its distribution is near a gamma
distribution's; so are mean and variance of a sum of likenesses between a source and its own target (Hoeffding 1951).
Either becomes a *deviation*: shuffled pairs have 0 ± 1, seldom more than 4 in the largest of a hundred comparisons.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

NOTHING = 1e-9  # of a variance: a kernel that is constant up to rounding
ROUNDING = 1e-5  # of a mean, in float32


class Kernel:
    """A symmetric likeness of the examples of one side, (n, n) float32, centred in rows and columns."""

    def __init__(self, likeness: np.ndarray) -> None:
        means = likeness.mean(0)
        self.table = (likeness - means[:, None] - means[None, :] + means.mean()).astype(np.float32, copy=False)
        self.size = len(likeness)
        diagonal = self.table.diagonal().astype(np.float64)
        self.trace, self.fourth = float(diagonal.sum()), float(np.square(diagonal).sum())
        self.squares = float(np.vdot(self.table, self.table))
        self.outlier = float(np.abs(diagonal - diagonal.mean()).max())

    @cached_property
    def largest(self) -> float:
        """The largest likeness of two examples, over the mean: what one pair may add."""
        apart = self.table.copy()
        np.fill_diagonal(apart, 0)
        return float(np.abs(apart).max())

    @cached_property
    def constant(self) -> bool:
        """Whether no two examples are more alike than any other two."""
        apart = self.table[~np.eye(self.size, dtype=bool)]
        return float(apart.var()) <= NOTHING * max(self.squares / self.size, NOTHING)


def goes_with(one: Kernel, other: Kernel) -> float:
    """The deviation of this pairing of two sides; 0 where a side is constant."""
    if one.constant or other.constant or one.size < 4:
        return 0.0
    mean, variance = _moments(one, other)
    # One pair of examples that agree by chance is no relation, nor is one outlier on either side, nor what is rounded.
    variance += (2 * one.largest * other.largest) ** 2 + (one.outlier * other.outlier) ** 2 + (ROUNDING * mean) ** 2
    found, shape = float(np.vdot(one.table, other.table)), mean * mean / variance
    gamma = (np.cbrt(found / mean) - 1 + 1 / (9 * shape)) * 3 * math.sqrt(shape)  # Wilson and Hilferty 1931
    return min(float(gamma), (found - mean) / math.sqrt(variance))


def _moments(one: Kernel, other: Kernel) -> tuple[float, float]:
    """Mean and variance of the sum of products over all permutations of one side."""
    n = one.size
    mean = one.trace * other.trace / (n - 1)
    first, second = [], []
    for kernel in (one, other):
        square = kernel.trace**2
        first.append((n - 1) * kernel.squares - square)
        second.append(n * (n + 1) * kernel.fourth - (n - 1) * (square + 2 * kernel.squares))
    variance = 2 * first[0] * first[1] / ((n - 1) ** 2 * (n + 1) * (n - 2))
    variance += second[0] * second[1] / ((n + 1) * n * (n - 1) * (n - 2) * max(n - 3, 1))
    return mean, max(variance, 0.0)


def own_is_likest(likeness: np.ndarray) -> float:
    """The deviation of the likeness (n, n) of each source with its own target; either sign tells, so it is positive."""
    n = len(likeness)
    apart = likeness - likeness.mean(0)[None, :] - likeness.mean(1)[:, None] + likeness.mean()
    variance = float(np.square(apart, dtype=np.float64).sum()) / max(n - 1, 1)
    if variance <= NOTHING:  # alike whichever way they are paired
        return 0.0
    return abs(float(np.trace(apart))) / math.sqrt(variance + float(np.abs(apart).max()) ** 2)
