"""Confidence intervals by resampling examples (Efron 1979; for BLEU and kin, Koehn 2004), and paired tests.

Examples are drawn, not tokens, since the tokens of one example are not independent. The paired tests are sacreBLEU's:
`sacrebleu --paired-bs` and `--paired-ar` give the same p-values. Their seed is that of the variable SACREBLEU_SEED,
12345 without it; `none` draws anew each time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sourcewise.errors import RequestError
from sourcewise.metrics.counting import Scorer

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


def score_interval(scorer: Scorer, outputs: Sequence[str], resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of a score over resampled examples."""
    return percentiles(scorer.of_sums(resampled_sums(scorer.statistics(outputs), resamples, seed)))


PairedTest = Literal["bootstrap", "randomisation"]
_OF_SACREBLEU = {"bootstrap": "bs", "randomisation": "ar"}


@dataclass(frozen=True, slots=True)
class Paired:
    """A paired test of one score of two systems: the p-value of no difference, and what it was made with."""

    p: float
    signature: str  # with the number of resamples or trials, and the seed


def paired_test(
    scorer: Scorer, baseline: Sequence[str], others: Sequence[Sequence[str]], test: PairedTest, samples: int = 0
) -> list[Paired]:
    """Two-sided paired tests of a score: each of `others` against the baseline, outputs of the same examples.

    `bootstrap` is Koehn's (2004) as Moses has it, with 1,000 resamples; `randomisation` is approximate randomisation
    (Riezler & Maxwell 2005) with 10,000 trials; `samples` is another number. Raises RequestError for a SACREBLEU_SEED
    that is none. As in sacreBLEU two systems of equal score get the least p-value there is, which says nothing.
    """
    from sacrebleu.significance import PairedTest as Test

    _check_seed()
    systems: Any = [(str(i), list(texts)) for i, texts in enumerate((baseline, *others))]
    counted: Any = {scorer.key: _Counted(scorer)}
    signatures, found = Test(systems, counted, None, _OF_SACREBLEU[test], samples)()
    (name,) = signatures
    results: Any = found[name][1:]  # the first is the baseline
    signature = scorer.signed(str(signatures[name]))
    return [Paired(float(each.p_value), signature) for each in results]


class _Counted:
    """A scorer as sacreBLEU's paired tests call a metric; what was counted already is not counted again."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._compute_score_from_stats = scorer.metric._compute_score_from_stats
        self._aggregate_and_compute = scorer.metric._aggregate_and_compute

    def _extract_corpus_statistics(self, outputs: Sequence[str], _: None) -> list[list[float]]:
        found: list[list[float]] = self._scorer.statistics(outputs).tolist()  # a copy: smoothing may write into it
        return found

    def get_signature(self) -> Any:
        """The signature, which the test completes."""
        return self._scorer.metric.get_signature()


def _check_seed() -> None:
    seed = os.environ.get("SACREBLEU_SEED", "")
    if seed and seed.lower() != "none" and not seed.isdecimal():
        raise RequestError(f"SACREBLEU_SEED={seed}: a seed is a whole number, or none")
