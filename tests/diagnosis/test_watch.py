"""The doctor before and during a training: it changes nothing, tells each thing once, and stops what cannot succeed."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import sourcewise
from sourcewise.api import prepare
from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.watch import Watch
from sourcewise.errors import RequestError
from sourcewise.training.run import Run, write_recipe
from tests.commands import tree
from tests.training.recipes import feature_recipe, recipe

pytestmark = pytest.mark.pages

TIMED = ("seconds", "tokens_per_s", "peak_mb", "device", "began")


def logged(run: Run) -> list[dict[str, Any]]:
    lines = [line for line in run.metrics() if line["kind"] not in ("watch", "finding")]
    return [{key: value for key, value in line.items() if key not in TIMED} for line in lines]


@pytest.mark.parametrize("made", [recipe, feature_recipe])
def test_a_training_does_not_know_that_it_was_looked_at(made: Any, tmp_path: Path) -> None:
    options = {"train__steps": 8, "model__dropout": 0.1}
    runs = [
        sourcewise.train(made(tmp_path, name=str(looked), train__preflight=looked, **options))
        for looked in (True, False)
    ]
    first, second = (load_file(run.last / "model.safetensors") for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert logged(runs[0]) == logged(runs[1])


def test_an_error_stops_it_before_the_first_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = recipe(tmp_path, train__preflight=True, train__learning_rate=0.0, train__steps=4)
    before = tree(tmp_path)
    with pytest.raises(RequestError, match=r"before the first step: WIR014, .*--train\.preflight false"):
        sourcewise.train(wrong)
    said = capsys.readouterr().err
    assert "error WIR014" in said and "cure:" in said
    assert tree(tmp_path) == before
    assert sourcewise.train(recipe(tmp_path, train__learning_rate=0.0, train__steps=4)).metrics()


def test_a_warning_is_told_once_and_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = sourcewise.train(recipe(tmp_path, train__preflight=True, train__steps=4))  # half of its pairs are copies
    assert capsys.readouterr().err.count("before the first step: warning DAT010") == 1
    looked, *found = [line for line in run.metrics() if line["kind"] in ("watch", "finding")]
    assert looked["kind"] == "watch" and looked["preflight"] is True and looked["not_checked"] == []
    (line,) = [line for line in found if line["code"] == "DAT010"]
    told = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "Looked at: the data and the wiring, before the first step; the course of training, up to step 4;" in told
    assert list(line) == ["kind", "step", "code", "name", "level", "evidence", "cure"] and line["step"] == 0


def watched(folder: Path, told: list[tuple[int, Finding]], steps: int = 400) -> Watch:
    """A watch over a run that has just begun, or was resumed."""
    made = recipe(folder, train__steps=steps)
    run = Run(folder)
    if not run.metrics():
        write_recipe(run, made)
        run.append({"kind": "start", "step": 0, "steps": steps, "target_entropy": 2.0})
    watch = Watch(made, lambda step, finding: told.append((step, finding)))
    watch.started(run, run.metrics()[-1]["step"], steps)
    return watch


def line(step: int, loss: float) -> dict[str, Any]:
    return {"kind": "train", "step": step, "loss": loss, "learning_rate": 1e-3, "gradient_norm": 500.0}


def test_each_finding_is_told_once_and_again_when_graver(tmp_path: Path) -> None:
    told: list[tuple[int, Finding]] = []
    watch = watched(tmp_path, told)
    for step in range(10, 400, 10):
        new = line(step, 5.0 - step / 100 if step < 200 else min(3.0 + step / 100, 8.0))
        assert watch.run is not None
        watch.run.append(new)
        watch.stepped(step, new)
    assert [f.code for _, f in told].count("TRN007") == 1
    rising = [(step, f.level) for step, f in told if f.code == "TRN002"]
    assert [level for _, level in rising] == ["warning", "error"] or [level for _, level in rising] == ["error"]
    written = [each for each in Run(tmp_path).metrics() if each["kind"] == "finding"]
    assert [(each["step"], each["code"], each["level"]) for each in written if each["level"] != "note"] == [
        (step, f.code, f.level) for step, f in told
    ]


def test_a_resumed_run_is_not_told_twice_and_misses_nothing(tmp_path: Path) -> None:
    told: list[tuple[int, Finding]] = []
    watch = watched(tmp_path, told)
    for step in range(10, 60, 10):
        assert watch.run is not None
        watch.run.append(line(step, 1.0))
        watch.stepped(step, line(step, 1.0))
    run = Run(tmp_path)
    before = run.metrics()
    watched(tmp_path, told)
    assert run.metrics() == before and len(told) == 1
    kept = [each for each in before if each["kind"] != "finding"]  # killed between an evaluation and its findings
    (tmp_path / "metrics.jsonl").unlink()
    for each in [*kept, {"kind": "evaluation", "step": 50}]:
        run.append(each)
    watched(tmp_path, told)
    assert [each["code"] for each in run.metrics() if each["kind"] == "finding"] == ["TRN007"]


def test_what_a_log_line_tells_of_a_step(tmp_path: Path) -> None:
    """Norms by part are those of the whole; update ratios are those of the weights before and after."""
    made = feature_recipe(tmp_path, train__precision="fp32", train__weight_decay=0.0, train__log_every=1)
    learner = prepare(made, Run(tmp_path / "run")).learner
    before = {}
    for batches in itertools.islice(learner.plan.steps(learner.at), 3):
        before = {name: weight.clone() for name, weight in learner.optimizer.weights().items()}
        taken = learner.learn(batches)
    norms, ratios = taken.statistics["gradient_norms"], taken.statistics["update_ratios"]
    assert set(norms) == set(ratios) == {"embedding", "encoder", "decoder", "bridge"}
    assert math.sqrt(sum(part**2 for part in norms.values())) == pytest.approx(float(taken.norm), rel=1e-4)
    moved = sorted(
        float((weight - before[name]).norm() / weight.norm())
        for name, weight in learner.optimizer.weights().items()
        if name.startswith("network.body.encoder") and weight.norm() > 0
    )
    assert ratios["encoder"] == pytest.approx(moved[len(moved) // 2], rel=1e-3)


def test_values_that_are_not_finite_are_the_diagnosis_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sourcewise.training.optimizer import MasterAdamW

    real = MasterAdamW.step

    def step(self: MasterAdamW, *given: Any) -> torch.Tensor:
        found = real(self, *given)
        self.steps_seen = getattr(self, "steps_seen", 0) + 1  # type: ignore[attr-defined]
        return found * math.nan if self.steps_seen > 8 else found  # type: ignore[attr-defined]

    with monkeypatch.context() as patched:
        patched.setattr(MasterAdamW, "step", step)
        with pytest.raises(RequestError, match="step 9: the loss is"):
            sourcewise.train(recipe(tmp_path))
    diagnosis = sourcewise.diagnose(tmp_path / "runs" / "tiny")
    (found,) = [f for f in diagnosis.findings if f.code == "TRN001"]
    assert "at step 9" in found.evidence and found.level == "error"


def test_a_watch_keeps_about_two_kilobytes_per_line(tmp_path: Path) -> None:
    """All lines of a training are kept while it runs: of a million steps, one line per 20, a hundred megabytes."""
    parts = {"embedding": 0.1234, "encoder": 0.2345, "decoder": 0.3456}
    figures = {"clipped": 0.85, "largest_norm": 2.3456, "gradient_norms": parts, "update_ratios": parts}
    run = Run(tmp_path)
    run.append({"kind": "start", "step": 0, "steps": 50_000})
    for step in range(20, 40_020, 20):
        run.append(
            line(step, 2.0 + 1 / step) | figures | {"tokens_per_s": 109818.25, "seconds": step / 7, "epoch": 1.5}
        )
    watch = Watch(recipe(tmp_path), lambda step, finding: None)
    tracemalloc.start()
    try:
        watch.started(run, 40_000, 50_000)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(watch.lines) == 2001
    assert kept < 2500 * len(watch.lines)
