"""The benchmark of healthy trainings in small: what it draws, that a fault would show, and a few of its trainings."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from sourcewise.diagnosis.finding import Finding

pytest.importorskip("accelerate", reason="transformers' Trainer needs it")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def healthy() -> Iterator[ModuleType]:
    """The script as a module."""
    sys.path.insert(0, str(BENCHMARKS))
    import healthy

    yield healthy
    sys.path.remove(str(BENCHMARKS))


def test_exercises_are_what_they_are_called(healthy: ModuleType) -> None:
    for name in healthy.EXERCISES:
        train, valid = healthy.drawn(healthy.Training(name, "train"))
        assert len(train) == healthy.TRAIN and len(valid) == healthy.VALID
        sources = {source for source, _ in train}
        assert len(sources) == len(train) and sources.isdisjoint(source for source, _ in valid)
        assert len({len(source) for source in sources}) == 1 or not name[-1].isdigit()
        source, target = train[0]
        right = {"reverse": source[::-1], "copy": source, "sort": "".join(sorted(source))}
        assert target == right.get(name.split(",")[0], target)
        if name.startswith("add"):
            assert sum(map(int, source.split("+"))) == int(target)


def test_all_hosts_and_precisions_are_among_them(healthy: ModuleType) -> None:
    asked = healthy.trainings(0)
    assert len(healthy.EXERCISES) == 10 and len({training.name for training in asked}) == len(asked)
    for host in ("train", "t5", "bart"):
        assert {t.precision for t in asked if t.host == host} >= {"bf16", "fp32"}
    assert {2, 64} <= {t.batch for t in asked if t.precision == "bf16"}


@pytest.mark.slow
@pytest.mark.parametrize(("host", "precision"), [("train", "bf16"), ("t5", "bf16"), ("bart", "bf16"), ("bart", "fp32")])
def test_a_short_one_has_no_error(healthy: ModuleType, host: str, precision: str) -> None:
    row = healthy.judged(healthy.Training("caesar, 26 letters, free length", host, precision, steps=45))
    assert row["error"] == [], row


def test_what_breaks_and_what_is_ill_is_a_row(healthy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    training = healthy.Training("copy, 26 letters, length 6", "train")
    ill, poor = Finding("WIR007", "", "error", "", ""), Finding("OUT004", "", "warning", "", "")
    monkeypatch.setattr(healthy, "by_train", lambda *_: ([ill], [poor]))
    row = healthy.judged(training)
    assert (row["error"], row["warning"]) == (["WIR007"], ["OUT004"]) and "WIR007 OUT004?" in healthy.told(row)

    def breaks(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(healthy, "by_trainer", breaks)
    assert healthy.judged(replace(training, host="t5"))["error"] == ["ZeroDivisionError: by zero"]
