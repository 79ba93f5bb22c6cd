"""The log of a training: its lines are those that run folders have always had, and old ones are read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from sourcewise.diagnosis.course import Course
from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.noted import noted_findings, noted_preflight
from sourcewise.diagnosis.watch import Watch
from sourcewise.errors import RequestError
from sourcewise.reporting.report import write_report
from sourcewise.training import events
from sourcewise.training.events import Evaluated, Event, Found, Started, Step, Stopped, Watched
from sourcewise.training.run import Run
from tests.training.recipes import recipe

# A run folder's file, as one was written before there were classes for its lines; texts are shortened.
OLD = """\
{"kind": "start", "step": 0, "steps": 60, "parameters": 22368, "target_entropy": 2.38, "device": "cpu", "torch": "2.13"}
{"kind": "watch", "step": 0, "preflight": true, "not_checked": ["DAT017"]}
{"kind": "finding", "step": 0, "code": "DAT005", "name": "one token", "level": "warning", "evidence": "5 %", "cure": ""}
{"kind": "train", "step": 5, "epoch": 1.667, "loss": 4.88, "learning_rate": 0.0001, "gradient_norm": 3.0, \
"largest_norm": 3.5, "clipped": 1.0, "gradient_norms": {"embedding": 0.47, "encoder": 1.13}, \
"update_ratios": {"embedding": 0.0001, "encoder": 0.0006}, "tokens_per_s": 109818.25, "seconds": 0.25, \
"reference_share": 0.875}
{"kind": "train", "step": 10, "epoch": 3.333, "loss": 4.5, "learning_rate": 0.0002, "gradient_norm": 2.0, \
"largest_norm": 2.5, "clipped": 0.8, "gradient_norms": {}, "update_ratios": {}, "tokens_per_s": 1.5, "seconds": 0.5}
{"kind": "evaluation", "step": 10, "epoch": 3.333, "loss": 2.14, "source_bits": 0.28, \
"source_bits_ci95": [0.18, null], "bleu": 1.8, "best": true}
{"kind": "evaluation", "step": 10, "epoch": 3.333, "averaged": 2, "loss": 2.2, "bleu": null}
{"kind": "stopped", "step": 11, "loss": null, "gradient_norm": 2.5, "why": "the loss is nan: a weight"}
{"kind": "stopped", "step": 12, "why": "its update left weights that are not finite: one"}
"""
TEXTS = OLD.splitlines()

FINDING = Finding("DAT005", "one token", "warning", "5 %", "")
NORMS = {"embedding": 0.47, "encoder": 1.13}
RATIOS = {"embedding": 1e-4, "encoder": 6e-4}
TIMES: dict[str, Any] = {"tokens_per_s": 109818.25, "seconds": 0.25}
METRICS = {"loss": 2.14, "source_bits": 0.28, "source_bits_ci95": (0.18, math.inf), "bleu": 1.8}
EVENTS: list[Event] = [
    Started(steps=60, parameters=22368, target_entropy=2.38, machine={"device": "cpu", "torch": "2.13"}),
    Watched(preflight=True, not_checked=["DAT017"]),
    Found(step=0, finding=FINDING.to_dict()),
    Step(
        step=5,
        epoch=1.667,
        loss=4.88,
        learning_rate=1e-4,
        gradient_norm=3.0,
        largest_norm=3.5,
        **{"clipped": 1.0, "gradient_norms": NORMS, "update_ratios": RATIOS, **TIMES, "reference_share": 0.875},
    ),
    Step(
        step=10,
        epoch=3.333,
        loss=4.5,
        learning_rate=2e-4,
        gradient_norm=2.0,
        largest_norm=2.5,
        clipped=0.8,
        gradient_norms={},
        update_ratios={},
        tokens_per_s=1.5,
        seconds=0.5,
    ),
    Evaluated(step=10, epoch=3.333, metrics=METRICS, best=True),
    Evaluated(step=10, epoch=3.333, averaged=2, metrics={"loss": 2.2, "bleu": math.nan}),
    Stopped(step=11, loss=math.nan, gradient_norm=2.5, why="the loss is nan: a weight"),
    Stopped(step=12, why="its update left weights that are not finite: one"),
]


@pytest.fixture
def old(tmp_path: Path) -> Run:
    run = Run(tmp_path)
    run.log.write_text(OLD)
    return run


@pytest.mark.parametrize(("event", "text"), zip(EVENTS, TEXTS, strict=True), ids=lambda each: str(each)[:30])
def test_an_event_is_the_line_it_has_always_been(event: Event, text: str, tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.append(event) == json.loads(text)
    assert run.log.read_text() == text + "\n"  # to the order of its keys


def test_an_old_folder_is_read_judged_reported_and_gone_on_with(old: Run) -> None:
    lines = old.metrics()
    assert lines == [json.loads(text) for text in TEXTS] == events.read_lines(old.log)
    assert (old.parameters, events.started(lines)["device"]) == (22368, "cpu")
    assert [line["step"] for line in events.of(lines, Step)] == [5, 10]
    course = Course.read(lines)
    assert (course.total, len(course.train), len(course.evaluations)) == (60, 2, 2)
    assert course.stopped == lines[-1] and course.target_entropy == 2.38
    assert noted_findings(lines) == {"DAT005": (FINDING, 0)}
    before = noted_preflight(lines)
    assert before is not None and list(before.not_checked) == ["DAT017"]
    page = write_report(old.folder).read_text()
    assert "step 10 of 60" in page and "DAT005" in page
    old.rewind(10)
    assert old.log.read_text() == "".join(text + "\n" for text in TEXTS[:7])


def test_the_doctor_writes_such_lines(tmp_path: Path) -> None:
    run, lines = Run(tmp_path), [json.loads(text) for text in TEXTS]
    watch = Watch(recipe(tmp_path), lambda step, finding: None, noted_preflight(lines))
    watch.started(run, 0, 60)
    assert run.log.read_text() == "".join(text + "\n" for text in TEXTS[1:3])


def test_a_line_that_is_cut_is_left_out_and_one_that_is_damaged_is_named(old: Run) -> None:
    with old.log.open("a") as file:
        file.write('{"kind": "train", "st')
    assert len(old.metrics()) == len(TEXTS)
    assert events.last_line(old.log) == json.loads(TEXTS[-1])
    old.log.write_text(OLD.replace('"watch", ', '"watch, '))
    assert len(events.read_lines(old.log)) == len(TEXTS) - 1
    with pytest.raises(RequestError, match=r"metrics\.jsonl:2: damaged: not a line that a run writes; take it out"):
        old.metrics()


def test_the_last_line_of_a_long_file_and_of_none(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert events.last_line(path) is None and events.read_lines(path) == []
    path.write_text(OLD * 50 + '{"kind": "train", "step": 99}\n{"ki')
    assert events.last_line(path) == {"kind": "train", "step": 99}
    path.write_text("é" * 3000)  # a tail that begins within a letter
    assert events.last_line(path) is None
