"""Rows that are chosen by the value of a column, and one task for each value."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from sourcewise.config import DataConfig, DatasetConfig
from sourcewise.data.open import choose_task, config_for, open_dataset, open_sets
from sourcewise.data.training_targets import training_targets
from sourcewise.errors import RequestError

ROWS = [("de", "eins", "1"), ("fr", "un", "1"), ("de", "zwei", "2"), ("fr", "deux", "2"), ("fr", "trois", "3")]


@pytest.fixture(params=[".tsv", ".csv", ".jsonl"])
def table(request: pytest.FixtureRequest, write_text) -> str:
    if request.param == ".jsonl":
        lines = [json.dumps(dict(zip(("language", "source", "target"), row, strict=True))) for row in ROWS]
        return str(write_text("x.jsonl", "\n".join(lines) + "\n"))
    between = "\t" if request.param == ".tsv" else ","
    return str(write_text(f"x{request.param}", "\n".join(map(between.join, [("language", "source", "target"), *ROWS]))))


@pytest.mark.parametrize("memory_mb", [64.0, 0.0])  # in memory and on disk
def test_only_these_rows(table: str, tmp_path: Path, memory_mb: float) -> None:
    data = DataConfig(memory_mb=memory_mb, store=str(tmp_path / "store"))
    dataset = open_dataset(DatasetConfig(pairs=table, where={"language": "fr"}), data)
    assert [(e.source, e.target) for e in dataset] == [("un", "1"), ("deux", "2"), ("trois", "3")]
    assert [int(e.where.rpartition(":")[2]) for e in dataset] == [2, 4, 5] or table.endswith(("tsv", "csv"))
    first = open_dataset(DatasetConfig(pairs=table, where={"language": "fr"}, limit=2), data)
    assert [e.source for e in first] == ["un", "deux"]  # the limit counts the chosen ones
    both = open_dataset(DatasetConfig(pairs=table, where={"language": "fr", "target": "2"}), data)
    assert [e.source for e in both] == ["deux"]


def test_a_value_or_a_column_that_is_not_there(table: str) -> None:
    with pytest.raises(RequestError, match="no row has 'es' in the column language; there are de, fr"):
        open_dataset(DatasetConfig(pairs=table, where={"language": "es"}))
    with pytest.raises(RequestError, match="no column 'lang'"):
        open_dataset(DatasetConfig(pairs=table, where={"lang": "fr"}))


def test_a_list_of_values_is_a_task_for_each(table: str) -> None:
    data = DataConfig.model_validate(
        {"train": {"pairs": table, "where": {"language": ["fr", "de"]}, "prefix": "<{language}> ", "lowercase": True}}
    )
    assert [each.task for each in data.sets("train")] == ["fr", "de"]
    french, german = open_sets(data, "train")
    assert (french[0].source, german[0].source) == ("<fr> un", "<de> eins")
    assert training_targets(data) == ["1", "2", "3", "1", "2"]
    again = DataConfig.model_validate(data.model_dump())  # as a run's recipe holds it
    assert again == data


def test_a_list_within_a_mixture(table: str) -> None:
    sets = [{"pairs": "y.tsv"}, {"pairs": table, "where": {"language": ["fr", "de"]}, "name": "numbers-{language}"}]
    data = DataConfig.model_validate({"train": sets})
    assert [each.task for each in data.sets("train")] == ["y", "numbers-fr", "numbers-de"]


def test_a_file_that_is_named_has_the_rows_of_its_task(table: str) -> None:
    data = DataConfig.model_validate({"test": {"pairs": "z.tsv", "where": {"language": ["fr", "de"]}}})
    config = config_for(table, like=choose_task(data, task="de"))
    assert config.where == ({} if table.endswith(".jsonl") else {"language": "de"})


def test_words_of_the_command_line() -> None:
    assert DatasetConfig.model_validate({"pairs": "x.tsv", "where": "language=fr"}).where == {"language": "fr"}


@pytest.mark.parametrize("where", [{"a": ["x"], "b": ["y", "z"]}, {"a": []}, "fr", {"a": {"b": "c"}}])
def test_what_cannot_be_meant(where: object) -> None:
    with pytest.raises(ValidationError, match="where"):
        DataConfig.model_validate({"train": {"pairs": "x.tsv", "where": where}})


@pytest.mark.parametrize("kind", [{"manifest": "m.tsv"}, {"text": "t.txt"}, {"pairs": "p.parquet", "stream": True}])
def test_where_is_of_pairs(kind: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="where chooses among the rows of pairs that are not streamed"):
        DatasetConfig.model_validate({**kind, "where": {"a": "b"}})
