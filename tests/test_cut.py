"""Sources, targets and frames beyond a limit are told, with how many, the option and the longest, at every door."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

import sourcewise
from sourcewise.cli import main
from sourcewise.errors import DataWarning, RequestError
from tests.commands import DIMS, TINY, Models

LONG = ("ba do ki " * 300).strip()  # tokens beyond the default of max_source, 512
TOLD = "1 of 3 sources is cut to max_source 512; the longest has 901 tokens"


@pytest.fixture
def long(here: Path) -> Path:
    """Pairs and lines of which one is too long."""
    (here / "long.txt").write_text(f"ba do\n{LONG}\nki\n")
    (here / "long.tsv").write_text(f"source\ttarget\nba do\tone two\n{LONG}\tthree\nki\t{('one two ' * 200).strip()}\n")
    return here


def test_generate(long: Path, models: Models, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(models.text), "long.txt"]) == 0
    said = capsys.readouterr()
    full = "sourcewise: 3 of 3 outputs end at max_new_tokens {}, not by themselves\n"
    assert said.err == f"sourcewise: long.txt: {TOLD}\n" + full.format(12) and said.out.count("\n") == 3
    assert main(["generate", str(models.text), "long.txt", "--max-source", "1000", "--max-new-tokens", "9"]) == 0
    assert capsys.readouterr().err == full.format(9)
    assert main(["generate", str(models.text), "long.txt", "--max-source", "2"]) == 0
    assert "2 of 3 sources are cut to max_source 2; the longest has 901 tokens" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["evaluate", "diagnose"])
def test_commands_that_judge(command: str, long: Path, models: Models, capsys: pytest.CaptureFixture[str]) -> None:
    main([command, str(models.text), "long.tsv", "--json"])
    said = capsys.readouterr()
    json.loads(said.out)
    assert f"sourcewise: long.tsv: {TOLD}" in said.err.splitlines()
    targets = "sourcewise: long.tsv: 1 of 3 targets is cut to max_target 256; the longest has 401 tokens"
    assert targets in said.err.splitlines()


def test_limits_of_evaluate(long: Path, models: Models, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(models.text), "long.tsv", "--max-source", "1000", "--max-target", "500"]) == 0
    assert "cut to" not in capsys.readouterr().err


def test_training(long: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = "--data.train.pairs long.tsv --data.valid.pairs good.tsv --data.test.pairs long.tsv --name t"
    assert main(["train", *f"{data} {TINY} --data.vocabulary 40".split()]) == 0
    said = capsys.readouterr().err
    assert said.count("sources is cut to max_source 512") == 2  # of the training data, and of the test data at the end
    assert "targets is cut to max_target 256" in said
    assert "sources is cut to max_source 512" in (long / "runs" / "t" / "notes.tsv").read_text()


def test_frames(here: Path, models: Models, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(here / "features" / "long.npy", np.zeros((5000, DIMS), "f4"))
    (here / "long.tsv").write_text("id\tn_frames\ttext\nclip0\t6\ta\nlong\t5000\tb\n")
    assert main(["generate", str(models.features), "long.tsv", "--features", "features"]) == 0
    told = "sourcewise: long.tsv: 1 of 2 sources is cut to max_frames 4,096; the longest has 5,000 frames\n"
    full = "sourcewise: 2 of 2 outputs end at max_new_tokens 12, not by themselves\n"
    assert capsys.readouterr().err == told + full
    words = ["generate", str(models.features), "long.tsv", "--features", "features", "--max-frames", "6000"]
    assert main(words) == 0 and capsys.readouterr().err == full


def test_python(models: Models) -> None:
    model = sourcewise.load(models.text)
    with pytest.warns(DataWarning, match=TOLD.replace("of 3", "of 2")):
        model.generate(["ba", LONG])
    with pytest.warns(DataWarning, match=TOLD.replace("of 3", "of 1")):
        "".join(model.stream(LONG))
    with pytest.warns(DataWarning, match="1 of 1 sources is cut"):
        model.encode(LONG)
    assert sourcewise.trace(model, LONG).unread == 901 - 512
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sourcewise.load(models.text, max_source=901).generate([LONG])
        model.limited(max_source=901).generate([LONG])


def test_limits_that_cannot_be(models: Models) -> None:
    with pytest.raises(RequestError, match="max_source"):
        sourcewise.load(models.text, max_source=0)
    with pytest.raises(RequestError, match="max_sources"):
        sourcewise.load(models.text, max_sources=10)
