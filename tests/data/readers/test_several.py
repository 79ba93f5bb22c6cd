"""Several targets of an example: lists, numbered columns, repeated sources."""

from __future__ import annotations

import pytest

from sourcewise.config import DatasetConfig
from sourcewise.config.files import load_recipe
from sourcewise.data.open import open_dataset
from sourcewise.data.readers.manifests import read_manifest
from sourcewise.data.readers.pairs import read_pairs
from sourcewise.errors import RequestError
from tests.commands import write_features


def test_a_list_in_jsonl(write_jsonl):
    rows = [
        {"source": "a", "target": ["x", "y", "z"]},
        {"source": "b", "target": "w"},
        {"source": "c", "target": ["v"]},
    ]
    found = read_pairs(write_jsonl("x.jsonl", *rows))
    assert [(e.target, e.others) for e in found] == [("x", ("y", "z")), ("w", ()), ("v", ())]
    assert [note.what for note in found.notes] == [
        "1 rows have several targets: the first is learnt, all are references"
    ]


@pytest.mark.parametrize("bad", [[], [1], ["a", None], [["a"]]])
def test_a_list_of_anything_else_is_a_bad_row(bad, write_jsonl):
    path = write_jsonl("x.jsonl", {"source": "a", "target": ["x"]}, {"source": "b", "target": bad})
    with pytest.raises(RequestError, match=r"x.jsonl:2: 'target' is (an empty list|a list of other things than texts)"):
        read_pairs(path)
    assert len(read_pairs(path, skip_bad=True)) == 1


def test_a_list_in_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"source": ["a", "b"], "target": [["x", "y"], ["z"]]})
    parquet.write_table(table, tmp_path / "x.parquet")
    assert [(e.target, e.others) for e in read_pairs(tmp_path / "x.parquet")] == [("x", ("y",)), ("z", ())]


def test_numbered_columns_go_as_far_as_there_is_no_gap(write_text):
    lines = "source\tref\tref2\tref3\tref5\na\tx\ty\t\tq\nb\tz\t\tw\tq\n"
    found = read_pairs(write_text("x.tsv", lines), target="ref")
    assert [e.others for e in found] == [("y",), ("w",)]
    assert "2 rows have several targets (ref2, ref3)" in found.notes[0].what


def test_a_manifest_with_a_second_text(tmp_path):
    write_features(tmp_path)
    lines = (tmp_path / "m.tsv").read_text().splitlines()
    (tmp_path / "m.tsv").write_text("\n".join([lines[0] + "\ttext2", *(f"{line}\tother" for line in lines[1:])]) + "\n")
    assert [e.others for e in read_manifest(tmp_path / "m.tsv")] == [("other",)] * 3


def test_rows_of_one_source_become_one_example_where_asked_for(write_text):
    path = write_text("x.tsv", "source\ttarget\na\tX\nb\tY\na\tZ\na\tX\n")
    apart = open_dataset(DatasetConfig(pairs=str(path)))
    assert [(e.source, e.target, e.others) for e in apart] == [(s, t, ()) for s, t in ("aX", "bY", "aZ", "aX")]
    joined = open_dataset(DatasetConfig(pairs=str(path), join_sources=True, lowercase=True, prefix="p: "))
    assert [(e.source, e.target, e.others) for e in joined] == [("p: a", "x", ("z",)), ("p: b", "y", ())]


def test_training_joins_nothing():
    with pytest.raises(RequestError, match="join_sources is for valid and test"):
        load_recipe("dates", {"data.train.join_sources": True})


def test_features_have_no_texts_to_join(tmp_path):
    write_features(tmp_path)
    with pytest.raises(RequestError, match="join_sources compares texts"):
        open_dataset(DatasetConfig(manifest=str(tmp_path / "m.tsv"), join_sources=True))
