"""The doctor's exam in small: a few faults and a control, and how answers are marked and summed up."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def exam() -> Iterator[ModuleType]:
    """The module `planted.exam`, as the script sees it."""
    sys.path.insert(0, str(BENCHMARKS))
    import planted.exam

    yield planted.exam
    sys.path.remove(str(BENCHMARKS))


def short(exam: ModuleType, subject: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(exam.SUBJECTS, subject, replace(exam.SUBJECTS[subject], steps=steps, size=300))


@pytest.mark.parametrize(
    ("fault", "subject", "code"),
    [
        ("NaN features", "digits t5", "DAT001"),
        ("shuffled pairs", "dates rnn", "DAT003"),
        ("encoder detached", "digits t5", "WIR012"),
    ],
)
def test_a_planted_fault_is_named_first(
    exam: ModuleType, fault: str, subject: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    short(exam, subject, 12, monkeypatch)
    row = exam.answer(exam.Question("fault", fault, subject))
    assert row["error"] is None and row["rank"] == 1
    assert row["findings"][0]["code"] == code


def test_a_fault_is_gone_after_its_question(exam: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from sourcewise.model.families.transformer import Transformer

    before = Transformer.run_encoder
    short(exam, "digits t5", 2, monkeypatch)
    exam.answer(exam.Question("fault", "encoder detached", "digits t5"))
    assert Transformer.run_encoder is before


def test_a_healthy_training_has_no_error(exam: ModuleType) -> None:
    row = exam.answer(exam.Question("control", "as it is: digits t5", "digits t5"))
    assert (row["error"], row["errors"], row["warnings"]) == (None, 0, 0)


def test_what_breaks_is_a_row(exam: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: Any) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(exam, "examined", breaks)
    row = exam.answer(exam.Question("fault", "one target", "digits rnn"))
    assert row["error"] == "ZeroDivisionError: by zero" and not row["found"]


def test_data_that_is_not_there_is_skipped(exam: ModuleType) -> None:
    row = exam.answer(exam.Question("fault", "shuffled pairs", "multi30k rnn"))
    assert "--data" in row["skipped"] and row["error"] is None


def finding(code: str, level: str) -> dict[str, str]:
    return {"code": code, "level": level}


def test_the_rank_counts_errors_and_warnings(exam: ModuleType) -> None:
    found = [finding("OUT001", "error"), finding("TRN013", "note"), finding("DAT003", "warning")]
    marked = exam.mark(found, frozenset({"DAT003"}))
    assert (marked["found"], marked["rank"], marked["above"]) == (True, 2, ["OUT001"])
    assert (marked["errors"], marked["warnings"]) == (1, 1)
    assert not exam.mark(found, frozenset({"TRN013"}))["found"]


def test_the_halves_share_no_seed_and_no_pair_of_data_and_family(exam: ModuleType) -> None:
    by_half: dict[str, set[Any]] = {"practice": set(), "exam": set()}
    for subject in exam.SUBJECTS.values():
        by_half[subject.split] |= {
            (subject.data, subject.family, subject.stranger, str(subject.options)),
            exam.Question("control", "", subject.name).seed,
        }
    assert not by_half["practice"] & by_half["exam"]


def test_there_are_faults_and_controls_enough(exam: ModuleType) -> None:
    assert len(exam.FAULTS) >= 36 and len(exam.CONTROLS) >= 24
    for fault in exam.FAULTS.values():
        halves = {exam.SUBJECTS[name].split for name in fault.subjects}
        assert halves == {"practice", "exam"}, fault.name


def test_every_accepted_code_is_a_rule(exam: ModuleType) -> None:
    from sourcewise.diagnosis.rules import RULES

    accepted = {code for fault in exam.FAULTS.values() for code in fault.causes}
    assert accepted <= RULES.keys()


def test_the_script_writes_its_report(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    words = ["--only", "NaN features", "--split", "practice", "--only", "other frames", "--json", str(file)]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "planted_faults.py"), *words], capture_output=True, text=True, check=True
    )
    report = json.loads(file.read_text())
    keys = ["faults", "cause_first", "cause_in_three", "controls", "false_errors", "false_warnings", "rows"]
    assert list(report) == keys
    assert (report["faults"], report["cause_first"], report["controls"]) == (2, 2, 0)
    assert "rank 1" in done.stdout
