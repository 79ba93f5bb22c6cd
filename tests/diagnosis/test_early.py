"""What a training that still gets better has not learned yet is a note; a collapse is an error at any time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from sourcewise.diagnosis.answer import Diagnosis, Piece
from sourcewise.diagnosis.course import Course, too_early
from sourcewise.diagnosis.cure import Cure
from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.ranking import put_together
from sourcewise.diagnosis.rules import RULES
from sourcewise.diagnosis.whole import of_course

SYMPTOMS = ("SRC001", "MEM001", "ATT001", "OUT001", "OUT004", "OUT007")
CAUSES = ("DAT002", "WIR006", "TRN002", "TRN006", "TRN011")


def course(
    at: Iterable[int],
    total: int,
    loss: Callable[[int], float],
    bits: Callable[[int], float],
    width: float = 0.02,
    **more: Any,
) -> Course:
    """A training with evaluations at these steps, a line of the training loss every ten."""
    found: list[dict[str, Any]] = [{"kind": "start", "step": 0, "steps": total, "target_entropy": 3.0}]
    for step in range(10, max(at) + 1, 10):
        found.append({"kind": "train", "step": step, "loss": loss(step), "gradient_norm": 1.0})
        if step in at:
            low, high = bits(step) - width, bits(step) + width
            read = {"source_bits": bits(step), "source_bits_ci95": [low, high], "reference_unique_pct": 100.0}
            found.append({"kind": "evaluation", "step": step, "loss": loss(step), **read})
    return Course.read(found + list(more.get("lines", ())))


def falling(step: int) -> float:
    return 3 - step / 500


def flat(step: int) -> float:
    return 2.0 + math.exp(-step / 20)


def diagnosed(of: Course, codes: Iterable[str] = SYMPTOMS) -> Diagnosis:
    return put_together([of_course(of), Piece([RULES[code].finding("seen") for code in codes])])


def levels(of: Course, codes: Iterable[str] = SYMPTOMS) -> dict[str, str]:
    return {f.code: f.level for f in diagnosed(of, codes).findings if f.code in codes}


EARLY: dict[str, Course] = {
    "step 30 of 60": course([30], 60, falling, lambda step: 0.0),
    "the loss falls": course([150, 300, 450], 900, falling, lambda step: 1.0),
    "source bits rise, the loss does not": course([150, 300, 450], 900, flat, lambda step: 0.5 + step / 300),
    "source bits rise from nothing": course([300, 600], 1200, flat, lambda step: step / 15000, 0.005),
    "a plateau at step 200": course([100, 200], 1000, flat, lambda step: 0.0),
    "a plateau in the first fifth": course([500, 1000], 10_000, flat, lambda step: 0.0),
    "one evaluation, the training loss falls": course([400], 900, falling, lambda step: 0.0),
    "evaluations at every tenth step": course(range(10, 400, 10), 900, falling, lambda step: 1.0),
}


@pytest.mark.parametrize("name", EARLY)
def test_what_is_not_learned_yet_is_a_note_that_says_why(name: str) -> None:
    diagnosis = diagnosed(EARLY[name])
    assert set(levels(EARLY[name]).values()) == {"note"}
    assert diagnosis.verdict == "healthy"
    assert diagnosed(EARLY[name], [*SYMPTOMS, "OUT009"]).verdict != "healthy"
    why = too_early(EARLY[name])
    assert why.startswith(f"step {EARLY[name].step} of {EARLY[name].total}")
    assert all(f.evidence == f"seen. No {RULES[f.code].level}: {why}" for f in diagnosis.findings if f.code in SYMPTOMS)


@pytest.mark.parametrize("name", EARLY)
def test_what_is_no_matter_of_time_stays_what_it_is(name: str) -> None:
    assert levels(EARLY[name], CAUSES) == {code: RULES[code].level for code in CAUSES}


JUDGED: dict[str, Course] = {
    "the loss and the source bits rest": course([300, 600], 1200, flat, lambda step: 0.0),
    "the source is read, all is at rest": course([300, 450, 600], 1200, flat, lambda step: 1.0),
    "the loss rises": course([300, 450, 600], 1200, lambda step: 2 + step / 500, lambda step: 1.0),
    "source bits fall": course([300, 450, 600], 1200, flat, lambda step: 2 - step / 500),
    "source bits waver about nothing": course([300, 600], 1200, flat, lambda step: step / 40_000, width=0.02),
    "one evaluation, the training loss rests": course([600], 1200, flat, lambda step: 0.0),
    "stopped": course([150, 300], 900, falling, lambda step: 1.0, lines=[{"kind": "stopped", "step": 301}]),
}


@pytest.mark.parametrize("name", JUDGED)
def test_a_training_at_rest_is_judged(name: str) -> None:
    assert levels(JUDGED[name]) == {code: RULES[code].level for code in SYMPTOMS}


def test_a_limit_that_is_too_low_is_none_of_training() -> None:
    cut = RULES["OUT007"].finding("seen", "warning", Cure("The limit is too low"))
    found = put_together([of_course(EARLY["the loss falls"]), Piece([cut])]).findings
    assert cut in found


def test_at_its_end_a_source_that_is_not_read_is_an_error_whatever_the_loss_does() -> None:
    ended = course([200, 400, 600], 600, falling, lambda step: 0.0)
    assert {"SRC001": "error", "OUT001": "error"}.items() <= levels(ended).items()
    (told,) = [f for f in diagnosed(ended).findings if f.code == "TRN005"]
    assert told.level == "error"


def test_at_its_end_a_source_that_begins_to_be_read_is_a_warning() -> None:
    ended = course([200, 400, 600], 600, falling, lambda step: (step - 200) / 8000, 0.008)
    assert {"SRC001": "warning", "OUT001": "warning"}.items() <= levels(ended).items()
    (told,) = [f for f in diagnosed(ended).findings if f.code == "TRN005"]
    assert told.level == "warning" and "source bits went from 0.03 at step 400 to 0.05 at step 600" in told.evidence


def test_a_short_training_whose_outputs_failed_still_names_the_unread_source() -> None:
    ended = course([80, 170, 260], 260, falling, lambda step: 0.0)
    assert levels(ended) == dict.fromkeys(SYMPTOMS, "note")
    found = diagnosed(ended, [*SYMPTOMS, "OUT009"])
    assert found.cause == "SRC001" and found.verdict == "ill"
    assert {f.code: f.level for f in found.findings if f.level != "note"} == {"SRC001": "warning", "OUT009": "error"}


def test_a_short_training_that_never_read_is_warned_of_though_its_loss_falls() -> None:
    """A collator that pairs each source with its neighbour's labels: the loss falls as of any language model."""
    for steps, level in (([60, 130, 190, 260], "warning"), ([130, 260], "note")):
        ended = course(steps, 260, falling, lambda step: 0.0)
        (told,) = [f for f in diagnosed(ended).findings if f.code == "TRN005"]
        assert told.level == level and "No error: these were 260 steps" in told.evidence


def test_outputs_that_failed_too_early_to_say_why_are_undecided() -> None:
    ended = course([200, 400, 600], 600, lambda step: 3 - step / 400, lambda step: 0.5)  # TRN014
    found = diagnosed(ended, ["OUT009"])
    assert {f.level for f in found.findings} == {"note"} and (found.verdict, found.cause) == ("undecided", None)
    assert found.to_dict()["verdict"] == "undecided"


def test_at_its_end_poor_outputs_of_a_source_that_is_read_are_a_level_lower() -> None:
    ended = course([200, 400, 600], 600, flat, lambda step: step / 400)
    assert levels(ended, ["OUT001", "OUT004", "MEM001"]) == {"OUT001": "warning", "OUT004": "note", "MEM001": "error"}
    assert "TRN014" in [f.code for f in diagnosed(ended).findings]


def test_a_short_training_that_ended_while_it_got_better_has_hardly_begun() -> None:
    ended = course([20, 40, 60], 60, lambda step: 4 - step / 40, lambda step: 0.0)
    assert set(levels(ended).values()) == {"note"}
    assert too_early(ended).startswith("these were 60 steps from random weights, and the validation loss went from")
    reads = course([40, 80, 120], 120, flat, lambda step: 0.05)
    assert too_early(reads).endswith("source bits are 0.05 at step 120, 0.03 at least")
    assert too_early(course([100, 200, 400], 400, flat, lambda step: 0.05)) == ""  # it was long enough
    assert "TRN005" not in {f.code for f in diagnosed(reads).findings if f.level != "note"}
    at_rest = course([60, 120, 180], 180, flat, lambda step: 0.0)
    assert levels(at_rest)["SRC001"] == "error" and too_early(at_rest) == ""


def test_the_last_step_is_logged_before_it_is_evaluated() -> None:
    last = {"kind": "train", "step": 900, "loss": falling(900), "gradient_norm": 1.0}
    waiting = course([300, 600], 900, falling, lambda step: 1.0, lines=[last])
    assert waiting.finished and set(levels(waiting).values()) == {"note"}


def test_several_sets_at_one_step_are_taken_together() -> None:
    """An easy set after a hard one is no progress."""

    def line(step: int, loss: float) -> dict[str, Any]:
        return {"kind": "evaluation", "step": step, "loss": loss, "source_bits": 1.0, "source_bits_ci95": [0.9, 1.1]}

    start = {"kind": "start", "step": 0, "steps": 2000}
    both = [line(step, loss) for step in (500, 1000) for loss in (3.0, 1.0)]
    assert Course.read([start, *both]).by_step("loss") == [(500, 2.0), (1000, 2.0)]
    assert too_early(Course.read([start, *both])) == ""


def test_a_finding_is_said_once_and_at_its_gravest() -> None:
    twice = [Finding("OUT004", "x", "note", "a", "b"), RULES["OUT004"].finding("seen")]
    found = put_together([of_course(JUDGED["the source is read, all is at rest"]), Piece(twice)]).findings
    assert [f.level for f in found if f.code == "OUT004"] == ["error"]
