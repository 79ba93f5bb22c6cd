"""Sufficient statistics of figures per example, so that bootstrap resamples need not read the texts again.

Scores are functions of sums over examples: of matching n-grams, of words, of errors. sacreBLEU, jiwer and rouge-score
count them; the figures are those of `metrics.json`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sourcewise.config import EvaluationConfig
from sourcewise.evaluation.results import Row
from sourcewise.metrics.counting import USUAL, scorers


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts (examples, parts) of one figure, and the function from sums (…, parts) to the figure (…)."""

    of: np.ndarray
    figure: Callable[[np.ndarray], np.ndarray]


def counts(rows: Sequence[Row], measuring: EvaluationConfig | None = None) -> dict[str, Counts]:
    """Figure → counts, from an evaluation's rows; loss and source bits only if the rows hold nats."""
    measuring = measuring or EvaluationConfig()
    outputs = [row.output for row in rows]
    scored = scorers([*USUAL, *measuring.metrics], [row.references for row in rows], measuring.counting)
    found = {key: Counts(each.statistics(outputs), each.of_sums) for key, each in scored.items()}
    gained = [[r.nats_shuffled - r.nats, r.tokens * math.log(2)] for r in rows]
    bits = np.array([[0.0, 0.0] if math.isnan(g[0]) else g for g in gained])
    loss = np.array([[r.nats, r.tokens] for r in rows])
    found |= {"loss": Counts(loss, _ratio)} if loss[:, 1].all() else {}
    return found | ({"source_bits": Counts(bits, _ratio)} if bits[:, 1].any() else {})


def _ratio(sums: np.ndarray) -> np.ndarray:
    return np.asarray(sums[..., 0] / np.maximum(sums[..., 1], 1e-300))
