"""Do the outputs come up to the verdict's bands? The verdict of `sourcewise evaluate`, as the last of all symptoms."""

from __future__ import annotations

from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.rules import (
    data_texts,
    output_texts,
    reading_texts,
    settings,
    signals_texts,
    source_use,
    training_texts,
    wiring_texts,
)
from sourcewise.diagnosis.rules.rule import Rule
from sourcewise.evaluation.results import Evaluation
from sourcewise.evaluation.verdict import verdict_of

__all__ = ["POOR_VERDICT", "RULES", "check"]

_EXPLAINING = (
    data_texts,
    settings,
    wiring_texts,
    signals_texts,
    training_texts,
    source_use,
    reading_texts,
    output_texts,
)

POOR_VERDICT = Rule(
    code="OUT009",
    name="a poor verdict",
    level="error",
    what=(
        "The verdict of `sourcewise evaluate` on these outputs: BLEU (or the exact match above chance, where most "
        "references have fewer than four words), distinct outputs, source bits."
    ),
    why="A model whose outputs fail is not healthy, however its wiring, its data and its training look.",
    threshold=(
        "Error where the verdict is failed, warning where it is moderate; the bands are those of `evaluate`. A note "
        "where the training was too short to judge (TRN013), and on the run's own sets while it trains or where its "
        "loss still fell at its end (TRN014). Whatever else is found explains it, so it is listed last."
    ),
    cure=(
        "What is listed above it is the likelier cause: begin there. Where it is found alone, hold the set against the "
        "training data: the same task prefix, case, script and conventions of the targets; features scaled alike, in "
        "the same order of dimensions, at the same frame rate; references in the order of the sources. Then read "
        "outputs beside references:\n"
        "  sourcewise evaluate MODEL DATA -o results"
    ),
    causes=tuple(rule.code for room in _EXPLAINING for rule in room.RULES),
)

RULES = (POOR_VERDICT,)


def check(evaluation: Evaluation) -> list[Finding]:
    """OUT009, however few the examples: what `evaluate` says of them, `diagnose` does not deny."""
    said = verdict_of(evaluation)
    if said is None or said.level not in ("failed", "moderate"):
        return []
    evidence = f"evaluate says {said.level} of {len(evaluation.rows)} examples: {said.text.rstrip('.')}"
    return [POOR_VERDICT.finding(evidence, "error" if said.level == "failed" else "warning")]
