"""Whole comparisons of tiny trainings: what they leave, what they take as it is, how they stop and go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sourcewise
from sourcewise.cli import main
from sourcewise.errors import RequestError
from tests.commands import ENVIRONMENT

TINY = """
name: tiny
output: {output}
data:
  train: {{builtin: digits, limit: 40}}
  valid: {{builtin: digits, limit: 8}}
  vocabulary: 64
model: {{d_model: 8, d_ff: 8, heads: 1, encoder_layers: 1, decoder_layers: 1, dropout: 0.0}}
train: {{steps: {steps}, batch_tokens: 512, evaluate_every: {steps}, log_every: 1, warmup_steps: 0, threads: 1,
  preflight: false}}
generation: {{beams: 1, max_new_tokens: 4}}
compare:
  seeds: [0]
  variants:
    plain:
    {other}
"""


def written(folder: Path, other: str, steps: int = 2) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(TINY.format(output=folder / "runs", other=other, steps=steps))
    return path


@pytest.mark.slow  # it starts Python three times
def test_a_comparison_leaves_its_table_and_trains_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = written(tmp_path, "broken: {train.learning_rate: 1.0e+30, train.clip: 0}")
    assert main(["compare", str(recipe), "--jobs", "2"]) == 1  # one of them failed
    folder = tmp_path / "runs" / "tiny"
    shown = capsys.readouterr()
    assert "Training broken-0 failed: step" in shown.out and "2/2" in shown.err
    for name in ("comparison.md", "comparison.html", "comparison.csv", "comparison.json"):
        assert (folder / name).stat().st_size > 0
    tree = json.loads((folder / "comparison.json").read_text())
    assert [line["missing"] for line in tree["lines"]] == [0, 1]
    assert set(tree["lines"][0]["figures"]) >= {"bleu", "chrf", "wer", "unique_pct", "source_bits"}
    assert tree["lines"][0]["parameters"] > 1000 and tree["lines"][0]["tokens_per_s"] > 0

    before = (folder / "plain-0" / "metrics.jsonl").stat().st_mtime_ns
    recipe = written(tmp_path, "projection: {model.bridge.kind: projection}")
    assert main(["compare", str(recipe), "--dry-run"]) == 0
    assert "plain\t1 finished" in (listed := capsys.readouterr().out) and "projection\t1 new\t" in listed
    table = sourcewise.compare(recipe)
    assert table.complete and (folder / "plain-0" / "metrics.jsonl").stat().st_mtime_ns == before
    difference = table.differences["projection"]["source_bits"]
    assert difference.examples is not None and difference.seeds is None

    with pytest.raises(RequestError, match=r"plain-0: was trained by another recipe \(train.steps 2, now 3\)"):
        sourcewise.compare(recipe, {"train.steps": 3})


def test_a_variant_that_cannot_be_trained_is_told_before_the_first_training(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"variant odd: model\.route"):
        sourcewise.compare(written(tmp_path, "odd: {model.family: decoder, model.route: bypass}"))
    assert not (tmp_path / "runs" / "tiny").exists()


def test_jobs_are_counted_from_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(written(tmp_path, "other:")), "--jobs", "0"]) == 2
    assert "--jobs should be 1 or more" in capsys.readouterr().err


@pytest.mark.slow  # it starts Python five times
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_is_stopped_is_saved_and_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    recipe = written(tmp_path, "other: {train.focal: 1.0}", steps=400)
    words = [sys.executable, "-m", "sourcewise", "compare", str(recipe), "--jobs", "2"]
    process = subprocess.Popen(words, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    runs = [tmp_path / "runs" / "tiny" / name for name in ("plain-0", "other-0")]
    wait_until(lambda: all((run / "metrics.jsonl").is_file() for run in runs))
    wait_until(lambda: all(len((run / "metrics.jsonl").read_text().splitlines()) > 5 for run in runs))
    os.kill(process.pid, number)
    said = process.communicate(timeout=300)[1]
    if number == signal.SIGINT:
        assert process.returncode == 130 and "go on with the same command" in said
    wait_until(lambda: all((run / "state" / "state.pt").is_file() for run in runs))  # killed, too, they save and end
    assert not any((run / "metrics.json").exists() for run in runs)
    wait_until(lambda: not any(_held(run) for run in runs))
    table = sourcewise.compare(recipe, jobs=2)
    assert table.complete
    assert "resuming" in (tmp_path / "runs" / "tiny" / "logs" / "plain-0.log").read_text()


def _held(run: Path) -> bool:
    import fcntl

    with (run / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def wait_until(done: object, seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not done():  # type: ignore[operator]
        assert time.monotonic() < until, "it takes too long"
        time.sleep(0.1)
