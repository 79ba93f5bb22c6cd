"""A set has the same words in every command that reads one: columns, features of a manifest, task, prefix."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import sourcewise
from sourcewise.cli import main
from sourcewise.cli.parser import COMMANDS
from sourcewise.generation.model import Model
from tests.commands import Models

OF_SETS = ("evaluate", "diagnose", "generate", "trace", "score")
WORDS = ("--features", "--source", "--target", "--task", "--prefix")


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("command", OF_SETS)
def test_every_command_knows_every_word(command: str, word: str) -> None:
    flags = [flag for each in COMMANDS[command].arguments for flag in each.flags]
    assert flags.count(word) == 1


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, Path, Path]:
    """The same pairs under our names and others, and under ours with a prefix before each source."""
    rows = [("ba do", "one two"), ("ki lu", "three four"), ("me no", "five six")]
    files = []
    for name, header, prefix in (
        ("ours", "source\ttarget", ""),
        ("theirs", "de\ten", ""),
        ("put", "source\ttarget", "no "),
    ):
        path = tmp_path / f"{name}.tsv"
        path.write_text(header + "\n" + "".join(f"{prefix}{a}\t{b}\n" for a, b in rows))
        files.append(path)
    return files[0], files[1], files[2]


def said(capsys: pytest.CaptureFixture[str], *words: str, status: tuple[int, ...] = (0, 1)) -> str:
    assert main(list(words)) in status
    out = capsys.readouterr().out
    if words[0] == "trace":
        return json.dumps(json.loads(out)["steps"])  # the rest names the file
    return "\n".join(line for line in out.splitlines() if not line.startswith("seconds"))


@pytest.mark.parametrize("command", ["evaluate", "generate", "trace"])
def test_columns_and_prefix_are_read_alike(
    command: str, models: Models, tables: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs, put = tables
    model, more = str(models.text), ["--max-new-tokens", "4"] + ["--json"] * (command != "evaluate")
    more += ["--id", "2"] if command == "trace" else []
    columns = ["--source", "de", "--target", "en"]
    plain = said(capsys, command, model, str(ours), *more, "--prefix", "")
    assert said(capsys, command, model, str(theirs), *more, *columns, "--prefix", "") == plain
    prefixed = said(capsys, command, model, str(ours), *more, "--prefix", "no ")
    assert prefixed == said(capsys, command, model, str(put), *more, "--prefix", "") != plain


def test_evaluate_and_diagnose_put_a_prefix_before_sources(models: Models, tables: tuple[Path, Path, Path]) -> None:
    ours, _, put = tables
    opened = sourcewise.load(models.text)
    assert isinstance(opened, Model)
    how = {"generation": {"max_new_tokens": 4}}
    one, two = (
        sourcewise.evaluate(opened, ours, prefix="no ", **how),
        sourcewise.evaluate(opened, put, prefix="", **how),
    )
    assert one.metrics["loss"] == two.metrics["loss"]
    assert [row.source for row in one.rows] == [row.source for row in two.rows]


def test_score_puts_it_before_the_sources_of_a_model_that_writes_now(
    models: Models, tables: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    ours, _, put = tables
    scores = [
        json.loads(said(capsys, "score", str(file), str(models.text), "--json", *more))["systems"][0]["scores"]
        for file, more in ((ours, ["--prefix", "no "]), (put, ["--prefix", ""]))
    ]
    assert scores[0] == scores[1]


def test_a_task_that_is_not_known_is_refused_by_all(
    models: Models, tables: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("evaluate", "diagnose", "generate", "trace"):
        more = ["--id", "1"] if command == "trace" else []
        assert main([command, str(models.text), str(tables[0]), "--task", "none such", *more]) == 2
        assert "--task none such: the model has no such task" in capsys.readouterr().err


def test_a_manifest_is_read_alike(models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = sourcewise.load(models.features)
    (tmp_path / "clips").mkdir()
    for name in "ab":
        np.save(tmp_path / "clips" / f"{name}.npy", np.ones((12, opened.network.dims), np.float32))
    manifest = tmp_path / "m.tsv"
    manifest.write_text("id\ttext\na\tone two\nb\tthree\n")
    words = [str(models.features), str(manifest), "--features", str(tmp_path / "clips")]
    for command, more in (("evaluate", []), ("generate", []), ("trace", ["--id", "b"])):
        assert main([command, *words, "--max-new-tokens", "3", *more]) == 0, capsys.readouterr().err
    assert main(["diagnose", *words, "--max-new-tokens", "3"]) in (0, 1)
    assert main(["score", str(manifest), str(models.features), "--features", str(tmp_path / "clips")]) == 0
