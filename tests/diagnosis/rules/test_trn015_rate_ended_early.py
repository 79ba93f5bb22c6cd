"""TRN015: a schedule that ended before the training."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from sourcewise.diagnosis.course import Course
from sourcewise.diagnosis.rules import look

LINES, EVERY = 40, 25


def course(rate: Callable[[float], float]) -> Course:
    """A training whose rate is a function of its progress, 0 to 1."""
    steps = [EVERY * (i + 1) for i in range(LINES)]
    lines = [{"kind": "train", "step": s, "loss": 3.0, "learning_rate": rate(s / steps[-1])} for s in steps]
    return Course.read([{"kind": "start", "steps": steps[-1]}, *lines])


def found(rate: Callable[[float], float]) -> list[tuple[str, str]]:
    return [(f.code, f.level) for f in look(course(rate), codes="TRN015").findings]


@pytest.mark.parametrize(
    ("rate", "level"),
    [
        (lambda x: max(0.0, 1 - 10 * x) * 1e-3, "error"),  # made for a tenth of the steps
        (lambda x: max(0.0, 1 - 2 * x) * 1e-3, "error"),  # stepped twice a step
        (lambda x: 0.5 * (1 + math.cos(math.pi * min(1.0, 4 * x))) * 1e-4, "error"),
        (lambda x: 1e-3 if x < 0.75 else 0.0, "warning"),
        (lambda x: 1e-3 if x < 0.5 else 1e-9, "error"),
    ],
)
def test_it_is_found(rate: Callable[[float], float], level: str) -> None:
    assert found(rate) == [("TRN015", level)]


@pytest.mark.parametrize(
    "rate",
    [
        lambda x: 1e-3,
        lambda x: (1 - x) * 1e-3,
        lambda x: 0.5 * (1 + math.cos(math.pi * x)) * 1e-3,
        lambda x: min(1.0, (x + 1e-9) ** -0.5 / 20) * 1e-3,
        lambda x: 1e-3 * 0.5 ** int(10 * x),  # halved ten times: a thousandth at its end
        lambda x: 0.0,
    ],
)
def test_usual_schedules_are_healthy(rate: Callable[[float], float]) -> None:
    assert found(rate) == []


def test_a_few_lines_tell_nothing() -> None:
    lines = [{"kind": "train", "step": s, "loss": 3.0, "learning_rate": 1e-3 * (s < 2)} for s in range(1, 9)]
    assert not look(Course.read(lines), codes="TRN015").findings
