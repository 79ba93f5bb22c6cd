"""Evaluations of made outputs, and what the rules over outputs say of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.outputs import Outputs
from sourcewise.diagnosis.rules import look
from sourcewise.evaluation.results import Evaluation, Row
from sourcewise.metrics.outputs import output_metrics

RNG = random.Random(8)
WORDS = [a + b for a in ("ba", "de", "fi", "go", "lu", "mi", "na", "po") for b in ("r", "st", "nk", "lm", "x")]
SENTENCES = [" ".join(RNG.choices(WORDS, k=RNG.randint(5, 12))) for _ in range(200)]
WORSE = [" ".join(w if RNG.random() < 0.7 else RNG.choice(WORDS) for w in text.split()) for text in SENTENCES]


def evaluation(references: Sequence[str], given: Sequence[str], **metrics: Any) -> Evaluation:
    rows = [Row(str(i), "", r, o) for i, (r, o) in enumerate(zip(references, given, strict=True))]
    return Evaluation(output_metrics(references, given, [True] * len(given)) | metrics, rows)


def found(references: Sequence[str], given: Sequence[str], **metrics: Any) -> dict[str, Finding]:
    piece = look(Outputs(evaluation(references, given, **metrics)), codes="OUT010..OUT012")
    return {finding.code: finding for finding in piece.findings}
