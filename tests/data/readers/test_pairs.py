from __future__ import annotations

import pytest

from sourcewise.data.readers.pairs import read_pairs
from sourcewise.errors import RequestError

ROWS = [{"source": "a cat", "target": "eine Katze"}, {"source": "a dog", "target": "ein Hund"}]


def _pairs(dataset):
    return [(e.source, e.target) for e in dataset]


def test_tsv(write_text):
    path = write_text("x.tsv", "source\ttarget\na cat\teine Katze\na dog\tein Hund\n")
    dataset = read_pairs(path)
    assert _pairs(dataset) == [("a cat", "eine Katze"), ("a dog", "ein Hund")]
    assert [e.id for e in dataset] == ["1", "2"]
    assert dataset[1].where == f"{path}:3"
    assert dataset.dims == 0 and dataset.name == str(path)


def test_columns_by_name_and_ids(write_text):
    path = write_text("x.tsv", "id\tde\ten\nx1\teine Katze\ta cat\n")
    dataset = read_pairs(path, source="en", target="de")
    assert _pairs(dataset) == [("a cat", "eine Katze")]
    assert dataset[0].id == "x1"


def test_jsonl_and_parquet_agree(write_jsonl, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    nested = [{"translation": {"en": r["source"], "de": r["target"]}} for r in ROWS]
    parquet.write_table(pyarrow.Table.from_pylist(nested), tmp_path / "x.parquet")
    names = {"source": "translation.en", "target": "translation.de"}
    from_json, from_parquet = (
        read_pairs(write_jsonl("x.jsonl", *nested), **names),
        read_pairs(tmp_path / "x.parquet", **names),
    )
    assert _pairs(from_json) == _pairs(from_parquet) == [("a cat", "eine Katze"), ("a dog", "ein Hund")]


def test_limit_and_no_targets(write_jsonl):
    dataset = read_pairs(write_jsonl("x.jsonl", *ROWS), target=None, limit=1)
    assert _pairs(dataset) == [("a cat", "")]


def test_hub_name_through_datasets(write_jsonl, tmp_path, monkeypatch):
    """A local folder is as good as a hub name to the library, and needs no network."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    nested = [{"translation": {"en": r["source"], "de": r["target"]}} for r in ROWS]
    write_jsonl("set/train.jsonl", *nested)
    dataset = read_pairs(f"hub:{tmp_path / 'set'}", source="translation.en", target="translation.de", limit=5)
    assert _pairs(dataset) == [("a cat", "eine Katze"), ("a dog", "ein Hund")]
    with pytest.raises(RequestError, match=r"no column 'source'; it has: .*translation\.en"):
        read_pairs(f"hub:{tmp_path / 'set'}")
    with pytest.raises(RequestError, match="split 'nope' cannot be loaded"):
        read_pairs(f"hub:{tmp_path / 'set'}", split="nope")
