"""Sums per example of all figures that a comparison resamples: those of texts, loss and source bits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sourcewise.config import EvaluationConfig
from sourcewise.evaluation.results import Row
from sourcewise.metrics.counting import USUAL, scorers
from sourcewise.metrics.measure import Counts, ratio


def counts(rows: Sequence[Row], measuring: EvaluationConfig | None = None) -> dict[str, Counts]:
    """Figure → counts, from an evaluation's rows; loss and source bits only if the rows hold nats."""
    measuring = measuring or EvaluationConfig()
    outputs = [row.output for row in rows]
    scored = scorers([*USUAL, *measuring.metrics], [row.references for row in rows], measuring.counting)
    found = {key: Counts(each.statistics(outputs), each.of_sums) for key, each in scored.items()}
    gained = [[r.nats_shuffled - r.nats, r.tokens * math.log(2)] for r in rows]
    bits = np.array([[0.0, 0.0] if math.isnan(g[0]) else g for g in gained])
    loss = np.array([[r.nats, r.tokens] for r in rows])
    found |= {"loss": Counts(loss, ratio)} if loss[:, 1].all() else {}
    return found | ({"source_bits": Counts(bits, ratio)} if bits[:, 1].any() else {})
