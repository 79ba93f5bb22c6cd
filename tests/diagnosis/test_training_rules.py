"""The rules over the course of a training: each is found where it should be, none where all is well."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from sourcewise.config import Recipe
from sourcewise.diagnosis.course import Course, stretches
from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.ours import plan_of
from sourcewise.diagnosis.ranking import put_together
from sourcewise.diagnosis.rules import look
from sourcewise.diagnosis.rules.training.trn009_updates_too_large_or_small import UpdatesTooLargeOrSmall
from sourcewise.diagnosis.whole import of_course

ENTROPY = 2.4
STEPS, EVERY = 1000, 20
PARTS = {"embedding": 0.05, "encoder": 0.4, "decoder": 0.9, "bridge": 0.3}


def recipe(**changes: Any) -> Recipe:
    tree: dict[str, Any] = {"name": "x", "data": {"train": {"builtin": "digits"}}, "train": {"steps": STEPS}}
    for key, value in changes.items():
        section, name = key.split("__")
        tree.setdefault(section, {})[name] = value
    return Recipe.model_validate(tree)


def fallen(step: int) -> float:
    """A loss that falls as those of digits do."""
    return 0.1 + 4 * math.exp(-step / 80)


def lines(steps: int = STEPS, **changes: Any) -> list[dict[str, Any]]:
    """The lines of a healthy training; `changes` are functions of the step, or values."""
    found: list[dict[str, Any]] = [{"kind": "start", "step": 0, "steps": STEPS, "target_entropy": ENTROPY}]
    for step in range(EVERY, steps + 1, EVERY):
        rate = 1e-3 * min(1, step / 100)
        line = {
            "kind": "train",
            "step": step,
            "loss": fallen(step),
            "learning_rate": rate,
            "gradient_norm": 2.0,
            "largest_norm": 4.0,
            "clipped": 1.0,
            "gradient_norms": {part: 2 * share for part, share in PARTS.items()},
            "update_ratios": dict.fromkeys(PARTS, 2 * rate),
        }
        line |= {key: value(step) if callable(value) else value for key, value in changes.items()}
        found.append(line)
        if step % 200 == 0:
            found.append(evaluation(step))
    return found


def evaluation(step: int, **changes: Any) -> dict[str, Any]:
    loss = 0.9 * fallen(step)
    given = {
        "kind": "evaluation",
        "step": step,
        "loss": loss,
        "source_bits": 3.0,
        "source_bits_ci95": [2.8, 3.2],
        "reference_unique_pct": 95.0,
        "exact_match_pct": 100 * math.exp(-5 * loss) ** 0.5,
        "bleu": 10.0 + step / 100,
        "target_tokens": 1000,
        "examples": 200,
    }
    return given | changes


def found(course: list[dict[str, Any]], **changes: Any) -> list[tuple[str, str]]:
    return [(f.code, f.level) for f in findings(course, **changes)]


def findings(course: list[dict[str, Any]], **changes: Any) -> list[Finding]:
    return look(Course.read(course, plan_of(recipe(**changes)))).findings


def changed(course: list[dict[str, Any]], kind: str, **changes: Any) -> list[dict[str, Any]]:
    """With other figures in all lines of a kind; functions are given the step."""
    new = {key: value if callable(value) else (lambda _, value=value: value) for key, value in changes.items()}
    return [{**ln, **{k: f(ln["step"]) for k, f in new.items()}} if ln["kind"] == kind else ln for ln in course]


def test_a_healthy_course_has_no_findings_at_any_of_its_lines() -> None:
    course = lines()
    for count in range(len(course) + 1):
        assert found(course[:count]) == []


def test_lines_of_older_runs_are_judged_by_what_they_have() -> None:
    kept = ("kind", "step", "loss", "learning_rate", "gradient_norm")
    course = [{key: line[key] for key in kept if key in line} for line in lines()]
    assert look(Course.read(course)).findings == []
    assert look(Course.read([])).findings == []


def test_values_that_are_not_finite_stop_a_training() -> None:
    course = [*lines(100), {"kind": "stopped", "step": 107, "loss": None, "gradient_norm": None}]
    (finding,) = findings(course)
    assert (finding.code, finding.level) == ("TRN001", "error")
    assert "at step 107 the loss is not finite" in finding.evidence and "2 at step 100" in finding.evidence


@pytest.mark.parametrize(("height", "level"), [(1.2, "warning"), (3.5, "error")])
def test_a_loss_that_rises_and_stays(height: float, level: str) -> None:
    course = lines(loss=lambda step: fallen(step) if step < 600 else height)
    assert ("TRN002", level) in found(course)
    assert ("TRN002", level) not in found(course, train__scheduled_sampling="linear")


def test_a_bump_that_is_over_is_no_divergence() -> None:
    assert found(lines(loss=lambda step: 3.0 if 500 < step < 600 else fallen(step))) == []


def test_a_loss_that_does_not_fall() -> None:
    assert ("TRN003", "error") in found(lines(loss=lambda step: 9 - step / 10_000))
    assert found(lines(80, loss=9.0)) == []  # still in its warm-up
    assert not {"TRN003"} & {code for code, _ in found(lines(loss=0.5), model__weights="some")}


def test_only_the_tokens_frequencies() -> None:
    course = changed(lines(loss=lambda step: ENTROPY + 5 * math.exp(-step / 50)), "evaluation", loss=ENTROPY)
    assert ("TRN004", "error") in found(course)
    assert ("TRN004", "warning") in found(course[:40])
    assert not found(course[:9])  # step 160 of 1,000: there is time yet
    barely = changed(course, "train", update_ratios=dict.fromkeys(PARTS, 1e-4))
    assert not {"TRN004"} & {code for code, _ in found(barely[:40])}


def test_a_language_model() -> None:
    unread = {"source_bits": 0.02, "source_bits_ci95": [0.0, 0.05]}
    course = changed(lines(loss=lambda step: 1.5 + fallen(step)), "evaluation", **unread)
    assert ("TRN005", "error") in found(course)
    assert ("TRN005", "warning") in found(course[:-12])
    assert found(course[:12]) == []  # the first evaluation says nothing yet
    labels = changed(course, "evaluation", reference_unique_pct=2.0)
    assert not {"TRN005"} & {code for code, _ in found(labels)}
    late = [{**line, "source_bits_ci95": [2.0, 2.2]} if line["step"] == STEPS else line for line in course]
    assert not {"TRN005"} & {code for code, _ in found(late)}


@pytest.mark.parametrize(("share", "level"), [(1e-5, "warning"), (0.0, "error")])
def test_a_part_without_gradient(share: float, level: str) -> None:
    course = lines(gradient_norms={"encoder": 2 * share, "decoder": 2.0})
    assert found(course) == [("TRN006", level)]
    assert found(course, model__route="bypass") == []


def test_large_gradients() -> None:
    assert found(lines(gradient_norm=500.0, gradient_norms={})) == [("TRN007", "warning"), ("TRN008", "note")]
    grown = lines(gradient_norm=lambda step: 0.1 if step < 600 else 50.0, gradient_norms={}, clipped=0.5)
    assert found(grown) == [("TRN007", "warning")]


def test_always_clipped() -> None:
    assert found(lines(gradient_norm=20.0, gradient_norms={})) == [("TRN008", "note")]
    assert found(lines(gradient_norm=20.0, gradient_norms={}), train__clip=0) == []


def test_updates_as_large_as_the_weights_and_too_small_ones() -> None:
    def moving(ratio: float) -> list[dict[str, Any]]:
        return lines(update_ratios=lambda step: dict.fromkeys(PARTS, ratio * min(1, step / 100)))

    assert found(moving(2.0)) == [("TRN009", "error")]
    assert found(moving(0.5)) == [("TRN009", "warning")]
    assert found(moving(1e-5)) == [("TRN009", "error")]
    assert found(moving(1e-5), model__weights="some") == []
    assert found(moving(1e-5)[:20]) == []  # the rate is still to do its work


def test_updates_too_small_where_nobody_knows_the_end() -> None:
    """As of a loop: no steps are planned, and the loss says whether such small ones were enough."""

    def said(ratio: float = 1e-5, **changes: Any) -> list[str]:
        course = Course.read(changed(lines(update_ratios=dict.fromkeys(PARTS, ratio), **changes), "start", steps=0))
        return [each.level for each in UpdatesTooLargeOrSmall().check(course) if isinstance(each, Finding)]

    assert said(loss=3.0) == ["error"]
    assert said(loss=3.0, learning_rate=lambda step: 1e-9 * step) == []  # on its way up
    assert said() == []  # the loss falls
    assert said(1e-3, loss=3.0) == []


def test_over_fitting() -> None:
    course = changed(lines(), "evaluation", loss=lambda step: 0.2 + abs(step - 400) / 2000, exact_match_pct=50.0)
    assert found(changed(course, "evaluation", bleu=lambda step: -abs(step - 400))) == [("TRN010", "warning")]
    assert found(course) == [("TRN010", "note")]  # BLEU still grew
    assert found(changed(course, "evaluation", loss=1.5)) == [("TRN010", "warning")]  # by heart from the start
    worse = changed(course, "evaluation", loss=lambda step: 1.0 + step / 100)  # far above, and rising, while BLEU grows
    assert found(worse) == [("TRN010", "note")]
    assert found(changed(worse, "evaluation", bleu=lambda step: -step)) == [("TRN010", "warning")]


def test_good_when_led_and_bad_when_free() -> None:
    course = changed(lines(), "evaluation", loss=0.05)
    assert found(changed(course, "evaluation", exact_match_pct=2.0)) == [("TRN011", "error")]
    assert found(changed(course, "evaluation", exact_match_pct=30.0)) == [("TRN011", "warning")]
    assert found(changed(course, "evaluation", exact_match_pct=75.0)) == []
    few = changed(course, "evaluation", exact_match_pct=2.0, examples=2, target_tokens=10)
    assert found(few) == []  # two examples may be chance


def test_dropout_that_drowns_the_signal() -> None:
    course = changed(lines(loss=lambda step: 2.2 + fallen(step)), "evaluation", loss=0.5)
    (finding,) = [f for f in findings(course, model__dropout=0.9) if f.code == "TRN012"]
    assert found(course, model__dropout=0.1) == []
    assert finding.level == "warning" and "model.dropout is 0.9" in finding.evidence


@pytest.mark.parametrize(("total", "level"), [(25_000, "note"), (400, "warning")])
def test_dropout_drowns_nothing_while_the_loss_falls(total: int, level: str) -> None:
    """A small Transformer with a dropout of 0.3, at its beginning, and the same at its end."""
    course = [line for line in lines(400, loss=lambda step: 2.6 - step / 1500) if line["kind"] != "evaluation"]
    course = [{**line, "steps": total} if line["kind"] == "start" else line for line in course]
    course.append(evaluation(400, loss=1.5))
    piece = of_course(Course.read(course, plan_of(recipe(model__dropout=0.3, train__steps=total))), "")
    (said,) = [each for each in put_together([piece]).findings if each.code == "TRN012"]
    assert said.level == level, said


def test_a_training_too_short_to_judge() -> None:
    short = [{**line, "steps": 60} if line["kind"] == "start" else line for line in lines(60)]
    assert found(short) == [("TRN013", "note")]


def test_a_training_that_ended_while_it_fell() -> None:
    slow = changed(lines(loss=lambda step: 3 - step / 500), "evaluation")
    for line in slow:
        if line["kind"] == "evaluation":
            line["loss"] = 3 - line["step"] / 500
    assert ("TRN014", "note") in found(slow)
    assert "TRN014" not in {code for code, _ in found(slow[:-10])}  # it has not ended
    assert "TRN014" not in {code for code, _ in found(lines())}


def test_a_plateau_of_three_hundred_steps_is_no_news() -> None:
    at_rest = lines(loss=lambda step: ENTROPY + 5 * math.exp(-step / 50))
    assert {("TRN004", "warning")} <= set(found([line for line in at_rest if line["step"] <= 320]))
    brief = [{**line, "steps": 640} if line["kind"] == "start" else line for line in at_rest]
    assert not {"TRN004", "TRN005"} & {code for code, _ in found([line for line in brief if line["step"] <= 280])}


def test_stretches_are_medians_in_order() -> None:
    assert list(stretches(np.arange(30.0))) == [1, 4, 7, 10, 13, 16, 19, 22, 25, 28]
