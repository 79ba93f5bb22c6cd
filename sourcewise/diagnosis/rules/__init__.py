"""The rules, by code. A room's file is its texts and its checks; deleting a file and its line here removes them."""

from __future__ import annotations

from collections.abc import Callable

from sourcewise.diagnosis.course import Course
from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.looked import Looked
from sourcewise.diagnosis.rules import (
    data_texts,
    judged,
    outputs,
    reading,
    settings,
    signals_texts,
    source_use,
    training,
    wiring_texts,
)
from sourcewise.diagnosis.rules.rule import Rule
from sourcewise.evaluation.results import Evaluation

# Causes before symptoms: the order breaks ties between findings of one level.
RULES: dict[str, Rule] = {
    rule.code: rule
    for rule in (
        *data_texts.RULES,
        *settings.RULES,
        *wiring_texts.RULES,
        *signals_texts.RULES,
        *training.RULES,
        *source_use.RULES,
        *reading.RULES,
        *outputs.RULES,
        *judged.RULES,
    )
}

COURSE_CHECKS: tuple[Callable[[Course], list[Finding]], ...] = (training.check,)
NETWORK_CHECKS: tuple[Callable[[Looked], list[Finding]], ...] = (reading.check,)  # of a trained network and a set
EVALUATION_CHECKS: tuple[Callable[[Evaluation], list[Finding]], ...] = (
    source_use.check,
    outputs.check,
    judged.check,
)

__all__ = ["COURSE_CHECKS", "EVALUATION_CHECKS", "NETWORK_CHECKS", "RULES", "Rule"]
