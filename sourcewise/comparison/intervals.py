"""Confidence intervals over a few seeds: Student's t for a mean, Welch's for the difference of two.

With three seeds t is 4.30: the normal distribution's 1.96 would give much too narrow an interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

CONFIDENCE = 0.95
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


def student_t(freedom: float, confidence: float = CONFIDENCE) -> float:
    """The quantile t with P(|T| < t) = confidence for `freedom` degrees of freedom, which need not be whole.

    With t = √freedom · tan θ the density is C · cos^(freedom − 1) θ, smooth and bounded: θ is found by bisection.
    Raises ValueError unless `freedom` is positive.
    """
    if not freedom > 0:
        raise ValueError(f"degrees of freedom should be above 0, not {freedom}")
    scale = 2 * math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        midpoint = (low + high) / 2
        angles = midpoint * (_NODES + 1) / 2
        mass = scale * midpoint / 2 * float(_WEIGHTS @ np.cos(angles) ** (freedom - 1))
        low, high = (midpoint, high) if mass < confidence else (low, midpoint)
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the mean of independent values; None for fewer than two."""
    if len(values) < 2:
        return None
    half = student_t(len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    mean = float(np.mean(values))
    return mean - half, mean + half


def welch_interval(values: Sequence[float], other: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of mean(values) − mean(other) for unequal variances (Welch 1947); None if one has no spread."""
    if min(len(values), len(other)) < 2:
        return None
    parts = [float(np.var(side, ddof=1)) / len(side) for side in (values, other)]
    difference = float(np.mean(values) - np.mean(other))
    if not sum(parts):
        return difference, difference
    freedom = sum(parts) ** 2 / sum(p**2 / (len(s) - 1) for p, s in zip(parts, (values, other), strict=True))
    half = student_t(freedom) * math.sqrt(sum(parts))
    return difference - half, difference + half
