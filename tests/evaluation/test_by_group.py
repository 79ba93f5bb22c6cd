"""Figures of groups, and of seen and unseen target texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

import sourcewise
from sourcewise.config import DataConfig, DatasetConfig
from sourcewise.data.training_targets import training_targets
from sourcewise.evaluation.by_group import group_figures, seen_figures
from sourcewise.evaluation.results import Row
from sourcewise.reporting.groups import group_tables
from tests.commands import TINY

TEXTS = [f"one two three four {i}" for i in range(12)]


def rows(speakers: Sequence[str], outputs: Sequence[str] = TEXTS) -> list[Row]:
    named = zip(speakers, TEXTS, outputs, strict=False)
    return [
        Row(str(i), "", text, said, group={"speaker": who} if who else {}) for i, (who, text, said) in enumerate(named)
    ]


def test_each_group_has_its_figures() -> None:
    found = group_figures(rows("aaaaaabbbbbc", [*TEXTS[:6], *["x"] * 6]))["by_group"]["speaker"]
    assert {name: each["examples"] for name, each in found.items()} == {"a": 6, "b": 5, "c": 1}
    assert found["a"]["exact_match_pct"] == 100 and found["b"]["exact_match_pct"] == 0 and found["b"]["bleu"] < 1
    assert list(found) == ["a", "b", "c"]


def test_what_has_no_group_has_a_row_too() -> None:
    found = group_figures(rows(["a"] * 4 + ["b"] * 4 + [""] * 4))["by_group"]["speaker"]
    assert {name: each["examples"] for name, each in found.items()} == {"a": 4, "b": 4, "no speaker": 4}


@pytest.mark.parametrize("speakers", [[""] * 12, ["a"] * 12, [str(i) for i in range(12)]])
def test_one_group_or_one_per_example_is_none(speakers: list[str]) -> None:
    assert group_figures(rows(speakers)) == {}


def test_many_groups_share_a_row() -> None:
    many = [Row(str(i), "", "a b c d e", "a b c d e", group={"recording": f"r{i // 3}"}) for i in range(90)]
    found = group_figures(many)["by_group"]["recording"]
    assert len(found) == 20 and found["11 others"]["examples"] == 33


def test_seen_and_unseen_texts() -> None:
    found = seen_figures(rows("a" * 12, [*TEXTS[:3], *["x"] * 9]), {TEXTS[0], TEXTS[1] + "  ", "other"})["by_target"]
    assert {name: each["examples"] for name, each in found.items()} == {"seen": 2, "unseen": 10}
    assert found["seen"]["exact_match_pct"] == 100 and found["unseen"]["exact_match_pct"] == 10
    assert seen_figures(rows("a" * 12), None) == seen_figures(rows("a" * 12), {"x"}) == {}
    assert seen_figures(rows("a" * 12), set(TEXTS)) == {}


def test_tables_for_people() -> None:
    metrics = group_figures(rows("aaaaaabbbbbb")) | seen_figures(rows("a" * 12), {TEXTS[0]})
    (title, columns, first), (other, _, second) = group_tables(metrics)
    assert (title, other) == ("Target texts", "By speaker")
    assert columns == ("target text", "examples", "BLEU", "chrF", "WER", "exactly right")
    assert first[0][:2] == ("seen in training", "1") and second[0] == ("a", "6", "100.00", "100.00", "0.000", "100.0 %")


def test_training_targets_are_read_without_features(tmp_path: Path) -> None:
    (tmp_path / "m.tsv").write_text("id\ttext\nnowhere1\tOne\nnowhere2\tTwo\n")
    (tmp_path / "p.tsv").write_text("source\ttarget\nx\tThree\n")
    sets = [DatasetConfig(manifest="m.tsv", lowercase=True), DatasetConfig(pairs="p.tsv")]
    assert training_targets(DataConfig(root=str(tmp_path), train=sets)) == ["one", "two", "Three"]
    assert len(training_targets(DataConfig(train=DatasetConfig(builtin="dates", limit=5))) or ()) == 5


@pytest.mark.parametrize(
    "train", [None, DatasetConfig(pairs="gone.tsv"), DatasetConfig(pairs="hub:some/set"), DatasetConfig(text="t.txt")]
)
def test_training_targets_that_are_not_there_are_not_known(train: DatasetConfig | None) -> None:
    assert training_targets(DataConfig(train=train)) is None


@pytest.mark.pages
def test_an_evaluation_of_a_run_has_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"s {i}\ta b c d {i}\tspeaker{i % 3}\n" for i in range(30)]
    (tmp_path / "train.tsv").write_text("source\ttarget\tspeaker\n" + "".join(lines))
    (tmp_path / "valid.tsv").write_text("source\ttarget\tspeaker\n" + "".join([*lines[:6], "q\tz z z z\tspeaker1\n"]))
    options = {"output": str(tmp_path / "runs"), "name": "run", "data.vocabulary": 64}
    options |= {f"data.{use}.pairs": str(tmp_path / f"{use}.tsv") for use in ("train", "valid")}
    words = TINY.replace("--", "").split()
    options |= {key: json.loads(value) for key, value in zip(words[::2], words[1::2], strict=True)}
    run = sourcewise.train(None, options)
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert {name: each["examples"] for name, each in metrics["by_target"].items()} == {"seen": 6, "unseen": 1}
    assert set(metrics["by_group"]["speaker"]) == {"speaker0", "speaker1", "speaker2"}
    logged = (run.folder / "metrics.jsonl").read_text()
    assert "by_group" not in logged  # it would be long
    capsys.readouterr()
    from sourcewise.cli import main

    assert main(["evaluate", str(run.folder), str(tmp_path / "valid.tsv")]) == 0
    out = capsys.readouterr().out
    assert "target text\texamples\tBLEU" in out and "\nseen in training\t6\t" in out and "\nspeaker1\t3\t" in out
    assert "By speaker" in (run.folder / "report.html").read_text()


def test_targets_of_a_large_table_are_those_of_a_small_one_and_a_stream_is_not_read(tmp_path: Path) -> None:
    table = tmp_path / "x.tsv"
    table.write_text("source\ttarget\n" + "".join(f"{i}\tWord {i}\n" for i in range(30)))
    sets = DatasetConfig(pairs=str(table), lowercase=True, limit=20)
    small = training_targets(DataConfig(train=sets))
    large = training_targets(DataConfig(train=sets, memory_mb=0.0, store=str(tmp_path / "store")))
    assert small is not None and large is not None and list(large) == list(small) == [f"word {i}" for i in range(20)]
    stream = DatasetConfig(pairs=str(tmp_path / "x.parquet"), stream=True)
    assert training_targets(DataConfig(train=stream)) is None
