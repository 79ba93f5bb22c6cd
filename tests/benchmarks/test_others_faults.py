"""The exam by others in small: how answers are marked, how the halves are drawn, and one fault from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def exam() -> Iterator[ModuleType]:
    """The module `others.exam`, as the script sees it."""
    sys.path.insert(0, str(BENCHMARKS))
    import others.exam

    yield others.exam
    sys.path.remove(str(BENCHMARKS))


def finding(code: str, level: str = "error", evidence: str = "") -> dict[str, str]:
    return {"code": code, "name": "", "level": level, "evidence": evidence, "cure": ""}


def row(*findings: dict[str, str], **told: Any) -> dict[str, Any]:
    return {"findings": list(findings), "skipped": None, "error": None, "harmed": ""} | told


@pytest.fixture
def case(exam: ModuleType) -> Any:
    from others.case import Case

    accepts = {"WIR005": "", "TRN001": "half", "new:some-key": ""}
    return Case("a", "loop", "", "", "", accepts, "", 0.0, lambda: None, frozenset({"DAT005"}))


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        ([finding("WIR005"), finding("OUT001")], "first"),
        ([finding("OUT001"), finding("SRC001"), finding("WIR005", "warning")], "among three"),
        ([*[finding("OUT001")] * 3, finding("WIR005")], "named"),
        ([finding("WIR005", "note")], "named"),
        ([finding("WIR003", "note"), finding("WIR005")], "first"),
        ([finding("OUT001"), finding("TRN004")], "symptom only"),
        ([finding("WIR003", "warning")], "symptom only"),
        ([finding("OUT001"), finding("WIR003")], "wrong"),
        ([finding("DAT005")], "symptom only"),  # true beside the cause
        ([finding("TRN001", evidence="not finite at step 3")], "symptom only"),
        ([finding("TRN001", evidence="overflow in half precision")], "first"),
        ([finding("WIR003", "note")], "nothing"),
        ([], "nothing"),
    ],
)
def test_the_cause_is_told_from_a_symptom_and_from_a_wrong_one(case: Any, findings: list[Any], verdict: str) -> None:
    from others.marking import marked

    assert marked(case, row(*findings), {}) == verdict


def test_what_was_skipped_crashed_or_changed_is_no_answer(case: Any) -> None:
    from others.marking import marked

    found = finding("WIR005")
    assert marked(case, row(found, skipped="no doctor"), {}) == "skipped"
    assert marked(case, row(found, error="ValueError"), {}) == "crashed or harmed"
    assert marked(case, row(found, harmed="loss 3 differs"), {}) == "crashed or harmed"


def test_a_key_is_answered_by_the_codes_that_its_makers_name(case: Any) -> None:
    from others.marking import marked

    made = row(finding("WIR099", evidence="the mask is inverted"))
    assert marked(case, made, {}) == "wrong"
    assert marked(case, made, {"new:some-key": "WIR099=inverted"}) == "first"
    assert marked(case, made, {"new:some-key": "WIR099=zeroed"}) == "wrong"


def test_losses_that_differ_are_harm_and_nan_is_itself(exam: ModuleType) -> None:
    from others.hosts import _changed

    nan = float("nan")
    assert _changed([1.0, nan], [1.0, nan]) == ""
    assert "loss 2" in _changed([1.0, 2.0], [1.0, 2.0000001])
    assert "1 losses" in _changed([1.0], [1.0, 2.0])


def test_what_is_skipped_counts_nowhere(exam: ModuleType) -> None:
    from others.marking import summary

    faults = [{"form": "broken", "verdict": word, "at_fault": None} for word in ("first", "skipped", "wrong")]
    healthy = [
        {"form": "mended", "verdict": None, "skipped": None, "at_fault": False, "alarms": {"error": [], "warning": []}},
        {
            "form": "control",
            "verdict": None,
            "skipped": "why",
            "at_fault": None,
            "alarms": {"error": [""], "warning": []},
        },
    ]
    counted = summary([row() | each for each in (*faults, *healthy)])
    assert (counted["faults"], counted["first"], counted["wrong"], counted["skipped"]) == (2, 1, 1, 1)
    assert (counted["healthy forms"], counted["with false errors"], counted["not at fault"]) == (1, 0, 1)


def test_the_halves_are_drawn_by_name_within_each_host(exam: ModuleType) -> None:
    known = [
        SimpleNamespace(name=f"{host} {i}", host=host, control=host == "trainer" and i > 7)
        for host in ("trainer", "loop")
        for i in range(12)
    ]
    half = exam.halves(known)
    assert half == exam.halves(reversed(known))
    for group in (known[:8], known[8:12], known[12:]):
        assert [half[case.name] for case in group].count("seen") * 2 == len(group)


def test_the_cases_are_told_in_full_and_their_codes_are_rules(exam: ModuleType) -> None:
    from others.hosts import REFUSED

    from sourcewise.diagnosis.rules import RULES

    cases = exam.cases(None).values()
    assert sum(not case.control for case in cases) >= 20 and sum(case.control for case in cases) >= 8
    assert {case.host for case in cases} == {"trainer", "loop", "diagnose", "recipe"}
    for case in cases:
        assert case.origin and (case.control or (case.what and case.expected and case.figure and case.gap > 0))
        codes = {code for code in (*case.accepts, *case.also) if not code.startswith("new:")}
        assert codes <= {*RULES, REFUSED}, case.name


def test_more_cases_are_found_in_a_folder(exam: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "faults_loop.py").write_text(
        "from others.case import Cases\nCASES = Cases()\n"
        "@CASES.fault('one more', 'loop', origin='x', what='x', expected='x', accepts='new:more')\n"
        "def _(broken, seed, folder, watch):\n    return [1.0], 0.0\n"
    )
    (tmp_path / "keys.json").write_text('{"new:more": "WIR001"}')
    found = exam.cases(tmp_path)
    assert set(found) - set(exam.cases(None)) == {"one more"}
    assert exam.keys(tmp_path)["new:more"] == "WIR001"
    row = exam.answer(exam.Question("one more", "mended", more=tmp_path, figures=True))
    assert row["figure"] == 0.0 and row["error"] is None


def test_what_breaks_is_a_row(exam: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: Any) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(exam.hosts, "run", breaks)
    found = exam.answer(exam.Question("loss over the padding", "broken"))
    assert found["error"] == "ZeroDivisionError: by zero" and found["verdict"] == "crashed or harmed"


def test_a_loop_without_the_doctor_is_skipped_loudly(exam: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    import sourcewise

    monkeypatch.setattr(sourcewise, "doctor", None, raising=False)
    found = exam.answer(exam.Question("loss over the padding", "broken"))
    assert "sourcewise.doctor" in found["skipped"] and found["verdict"] == "skipped"


def test_a_fault_is_at_fault_and_its_mended_form_is_not(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    words = ["--figures", "--half", "seen", "--only", "loss over the padding", "--json", str(file)]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "others_faults.py"), *words], capture_output=True, text=True
    )
    broken, mended = json.loads(file.read_text())["rows"]
    assert done.returncode == 0, done.stdout + done.stderr
    assert (broken["form"], mended["form"]) == ("broken", "mended")
    assert mended["at_fault"] is True and mended["figure"] - broken["figure"] >= broken["gap"]


def test_both_halves_are_here(exam: ModuleType) -> None:
    known = exam.cases(BENCHMARKS / "others" / "held_back")
    faults = [case.name for case in known.values() if not case.control]
    there = set(exam.cases(None))
    assert len(faults) == 50 and len(there.intersection(faults)) == 25
    assert exam.halves(known.values()) == {name: "seen" if name in there else "unseen" for name in known}
