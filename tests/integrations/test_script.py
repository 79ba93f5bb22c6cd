"""`sourcewise diagnose --script`: scripts that know nothing of us, run as ever, and diagnosed by their causes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sourcewise.cli.parser import COMMANDS, main
from sourcewise.errors import RequestError
from sourcewise.integrations.script.program import Program
from tests.commands import ENVIRONMENT

SCRIPTS = Path(__file__).parent / "scripts"


def diagnose(folder: Path, script: str, *given: str, options: tuple[str, ...] = ()) -> tuple[Any, Any]:
    """The process of the command, and its JSON."""
    words = [sys.executable, "-m", "sourcewise", "diagnose", "--script", script, "--json", *options, "--", *given]
    done = subprocess.run(words, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    return done, json.loads(done.stdout) if done.stdout else None


# ── what is run ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_help_names_it_and_stays_short(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", "--help"]) == 0
    said = capsys.readouterr().out
    assert "--script" in said and "--steps" in said and len(said.splitlines()) <= 34


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--script", "no.py"], "no.py: no such script"),
        (["--script", "a.ipynb"], "a.ipynb: is no Python script; jupyter nbconvert"),
        (["--script", "run.sh"], "run.sh: is no Python script; name the Python script"),
        (["--script", "train.py", "--lr", "1"], "--lr: what the script is given stands behind --"),
        (["--script", "train.py", "more"], "more: what the script is given stands behind --"),
        (["--script", "train.py", "--steps", "-1"], "--steps -1: is a number of steps"),
        (["train.py"], "train.py: is a script, and no model; to run and watch it: sourcewise diagnose --script"),
        (["runs/x", "--steps", "3"], "--steps: goes with --script"),
        ([], "MODEL is missing"),
    ],
)
def test_what_cannot_be_run_is_one_line(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("train.py", "a.ipynb", "run.sh"):
        (tmp_path / name).write_text("")
    assert main(["diagnose", *words]) == 2
    shown = capsys.readouterr().err
    assert said in shown and len(shown.splitlines()) == 1


def test_words_behind_two_dashes_are_the_scripts() -> None:
    parse = COMMANDS["diagnose"].parse
    found = parse(["--script", "train.py", "--steps", "5", "--", "--steps", "7", "--lr=1", "--", "x"])
    assert found.steps == 5 and found.passed_on == ["--steps", "7", "--lr=1", "--", "x"]
    assert parse(["odd.tsv", "--beams", "2"]).passed_on == []


def test_scripts_and_modules() -> None:
    assert Program("package.train").is_module and not Program("train.py").is_module
    assert not Program(str(SCRIPTS)).is_module
    with pytest.raises(RequestError, match="no such script"):
        Program(str(SCRIPTS / "package")).check()  # a folder without a __main__.py


# ── scripts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "cause"), [("", None), ("state", "WIR028"), ("unoptimised", "WIR003"), ("zeros", "WIR026")]
)
def test_a_tutorial_with_two_optimizers(tmp_path: Path, fault: str, cause: str | None) -> None:
    done, found = diagnose(tmp_path, str(SCRIPTS / "tutorial.py"), *([fault] if fault else []))
    assert found["cause"] == cause, done.stderr
    assert done.returncode == (1 if cause else 0) and "60 steps of EncoderRNN, DecoderRNN" in done.stderr
    assert "60 " in done.stderr and "trained" not in done.stderr.splitlines()  # it was ended
    if not cause:
        assert found["verdict"] == "healthy"


@pytest.mark.slow
def test_a_script_that_runs_to_its_end_is_as_without(tmp_path: Path) -> None:
    """Every line that it prints, its checkpoint, its workers, its atexit function."""
    script, given = SCRIPTS / "transformer.py", ["--workers", "2", "--epochs", "1", "--save", "model.pt"]
    alone, beside = tmp_path / "alone", tmp_path / "beside"
    alone.mkdir()
    beside.mkdir()
    plain = subprocess.run(
        [sys.executable, script, *given], cwd=alone, env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    words = [sys.executable, "-m", "sourcewise", "diagnose", "--steps", "0", "--script", str(script), "--", *given]
    done = subprocess.run(words, cwd=beside, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(plain.stdout) and "cleaned up" in plain.stdout and "healthy" in done.stdout
    assert (alone / "model.pt").read_bytes() == (beside / "model.pt").read_bytes()
    assert "held-out examples" in done.stderr


@pytest.mark.slow
def test_a_transformer_whose_encoder_is_not_in_the_optimizer(tmp_path: Path) -> None:
    given = ("--fault", "unoptimised", "--teacher", "--save", "model.pt")
    done, found = diagnose(tmp_path, str(SCRIPTS / "transformer.py"), *given)
    assert found["cause"] == "WIR003" and done.returncode == 1, done.stderr
    assert "60 steps of Seq2Seq" in done.stderr and "cleaned up" in done.stderr and not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "cause"), [("none", None), ("zeros", "WIR002")])
def test_a_trainer(tmp_path: Path, fault: str, cause: str | None) -> None:
    done, found = diagnose(tmp_path, str(SCRIPTS / "trainer.py"), fault, "out")
    assert found["cause"] == cause, done.stderr
    assert found["verdict"] == ("ill" if cause else "healthy")
    assert "60 steps of T5ForConditionalGeneration" in done.stderr and "held-out examples" in done.stderr
    assert not list(tmp_path.rglob("*.safetensors"))  # it was ended before it saved


@pytest.mark.slow
def test_a_module_that_ends_by_an_error_of_its_own(tmp_path: Path) -> None:
    done, found = diagnose(SCRIPTS, "package.train", "30", "--last")
    lines = done.stderr.splitlines()
    assert "__main__ package ['30', '--last']" in lines and "ValueError: no more rows" in lines
    at = lines.index("Traceback (most recent call last):")
    trace = lines[at : lines.index("ValueError: no more rows")]
    assert len([line for line in trace if line.startswith("  File")]) == 1  # no frame of ours
    assert "30 steps of Model" in done.stderr and "it ended by ValueError (exit status 1)" in done.stderr
    assert done.returncode == 1 and found["cause"] is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("import torch\nprint('nothing')\n", 2, "no training was seen in its process"),
        ("print('hello')\n", 2, "torch was not imported"),
        (
            "import os\nos._exit(3)\n",
            2,
            "its process ended before anything could be told of it; it ended by exit status 3",
        ),
        ("import sys\nsys.exit('no data')\n", 2, "it ended by exit status 1"),
    ],
)
def test_a_script_that_does_not_train(tmp_path: Path, text: str, status: int, said: str) -> None:
    (tmp_path / "train.py").write_text(text)
    done, _ = diagnose(tmp_path, "train.py")
    assert done.returncode == status and said in done.stderr.splitlines()[-1]
