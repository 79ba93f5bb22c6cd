"""Confidence intervals by resampling examples (Efron 1979; for BLEU and kin, Koehn 2004).

Examples are drawn, not tokens, since the tokens of one example are not independent.
"""

from __future__ import annotations

import numpy as np

_CELLS = 2_000_000  # draws held in memory at once


def interval(
    sums: np.ndarray, weights: np.ndarray, resamples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float]:
    """The percentile interval of sum(sums) / sum(weights) over resampled examples.

    `sums` and `weights` are (examples,), such as summed bits and token counts; the unit is that of sums over weights.
    With one example the interval has no width. Raises ValueError for no examples, unequal lengths, or weights that are
    negative or all zero.
    """
    ratios = _resampled_ratios(_checked(sums, weights), resamples, seed)[:, 0]
    return percentiles(ratios, confidence)


def _checked(sums: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(examples, 2) float64: sums and weights side by side."""
    sums, weights = np.asarray(sums, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if sums.ndim != 1 or sums.shape != weights.shape or not len(sums):
        raise ValueError(f"one sum and one weight per example, not {sums.shape} and {weights.shape}")
    if (weights < 0).any() or weights.sum() == 0:
        raise ValueError("weights are not negative, and not all zero")
    return np.stack([sums, weights], axis=1)


def _resampled_ratios(columns: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """(examples, 2 × sides) → (resamples, sides): each resample's sum of sums over sum of weights."""
    totals = resampled_sums(columns, resamples, seed)
    weights = totals[:, 1::2]
    # A resample of examples without weight has no ratio: the percentiles leave it out.
    return np.divide(totals[:, 0::2], weights, out=np.full_like(weights, np.nan), where=weights > 0)


def resampled_sums(columns: np.ndarray, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """(examples, parts) → (resamples, parts): sums over examples drawn with replacement, equal for equal seeds."""
    rng = np.random.default_rng(seed)
    size, totals = len(columns), np.empty((resamples, columns.shape[1]))
    step = max(1, _CELLS // size)
    for start in range(0, resamples, step):
        drawn = rng.integers(0, size, (min(step, resamples - start), size), dtype=np.int32)
        times = np.stack([np.bincount(row, minlength=size) for row in drawn]).astype(np.float64)
        totals[start : start + len(drawn)] = times @ columns
    return totals


def percentiles(resampled: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """The central interval that holds the share `confidence` of the values (resamples,); NaN is left out."""
    tail = 50 * (1 - confidence)
    low, high = np.nanpercentile(resampled, [tail, 100 - tail])
    return float(low), float(high)
