"""Whole comparisons of tiny trainings: what they leave, what they take as it is, how they stop and go on."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import sourcewise
from sourcewise.cli import main
from sourcewise.comparison import runs
from sourcewise.errors import RequestError
from sourcewise.training.run import locked
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

OTHER = "other: {train.focal: 1.0}"


def written(folder: Path, other: str, steps: int = 2) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(TINY.format(output=folder / "runs", other=other, steps=steps))
    return path


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings in processes that are forked off this one: they need not import all again, as spawned ones do."""
    fork, train = multiprocessing.get_context("fork"), runs._train

    def speaking(*given: Any) -> None:
        # Into the log: pytest's own streams would keep it.
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        train(*given)

    monkeypatch.setattr(runs.multiprocessing, "get_context", lambda kind: fork)
    monkeypatch.setattr(runs, "_train", speaking)


@pytest.mark.usefixtures("forked")
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


def test_one_training_alone_is_taken_by_the_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, folder = written(tmp_path, OTHER), tmp_path / "runs" / "tiny"
    assert main(["compare", str(recipe), "--only", "plain-1"]) == 2
    said = capsys.readouterr().err
    assert "--only plain-1: no such training in tiny; did you mean plain-0?" in said and not folder.exists()
    for name in ("other-0", "plain-0"):
        assert main(["compare", str(recipe), "--only", name]) == 0
    trained = (folder / "plain-0" / "metrics.jsonl").stat().st_mtime_ns
    assert not (folder / "comparison.json").exists()
    with locked(folder / "plain-0"):
        assert main(["compare", str(recipe), "--only", "plain-0"]) == 0  # it is finished: nothing is done
        (folder / "plain-0" / "nats.json").unlink()
        capsys.readouterr()
        assert main(["compare", str(recipe), "--only", "plain-0"]) == 2
        assert "plain-0: another process is training here" in capsys.readouterr().err
    assert main(["compare", str(recipe), "--only", "plain-0"]) == 0
    table = sourcewise.compare(recipe)
    assert table.complete and (folder / "plain-0" / "metrics.jsonl").stat().st_mtime_ns >= trained


def test_jobs_are_counted_from_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(written(tmp_path, "other:")), "--jobs", "0"]) == 2
    assert "--jobs should be 1 or more" in capsys.readouterr().err


@pytest.mark.usefixtures("forked")
def test_what_is_interrupted_is_saved_and_goes_on(tmp_path: Path) -> None:
    recipe, said = written(tmp_path, OTHER, steps=400), tmp_path / "said"
    process = multiprocessing.get_context("fork").Process(target=_compare, args=(recipe, said))
    process.start()
    started = under_way(tmp_path)
    os.kill(process.pid, signal.SIGINT)
    process.join(300)
    assert process.exitcode == 130 and "go on with the same command" in said.read_text()
    check_that_it_goes_on(recipe, started)


@pytest.mark.slow  # it starts Python three times
@pytest.mark.usefixtures("forked")
def test_what_is_killed_is_saved_and_goes_on(tmp_path: Path) -> None:
    recipe = written(tmp_path, OTHER, steps=400)
    words = [sys.executable, "-m", "sourcewise", "compare", str(recipe), "--jobs", "2"]
    process = subprocess.Popen(words, env=ENVIRONMENT, stderr=subprocess.DEVNULL, start_new_session=True)
    started = under_way(tmp_path)
    process.kill()
    process.wait(300)
    check_that_it_goes_on(recipe, started)


def _compare(recipe: Path, said: Path) -> None:
    """`sourcewise compare`, as somebody's own command."""
    os.setsid()
    with said.open("w") as sys.stderr:
        sys.exit(main(["compare", str(recipe), "--jobs", "2"]))


def under_way(folder: Path) -> list[Path]:
    """The two runs, when both have taken some steps."""
    found = [folder / "runs" / "tiny" / name for name in ("plain-0", "other-0")]
    wait_until(lambda: all((run / "metrics.jsonl").is_file() for run in found))
    wait_until(lambda: all(len((run / "metrics.jsonl").read_text().splitlines()) > 5 for run in found))
    return found


def check_that_it_goes_on(recipe: Path, started: list[Path]) -> None:
    """Both have saved and ended, and a second comparison goes on with them."""
    wait_until(lambda: all((run / "state" / "state.pt").is_file() for run in started))
    assert not any((run / "metrics.json").exists() for run in started)
    wait_until(lambda: not any(_held(run) for run in started))
    table = sourcewise.compare(recipe, jobs=2)
    assert table.complete
    assert "resuming" in (started[0].parent / "logs" / "plain-0.log").read_text()


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
