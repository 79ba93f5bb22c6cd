from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from sourcewise.data.readers.columns import read_arrow
from sourcewise.data.readers.delimited import read_header, write_tsv
from sourcewise.data.readers.lines import decode_lines
from sourcewise.data.readers.manifests import read_manifest
from sourcewise.data.readers.pairs import read_pairs
from sourcewise.data.readers.tables import listed, no_column, read_table, read_tsv
from sourcewise.errors import RequestError

fields = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)


@given(rows=st.lists(st.tuples(fields, fields).filter(any), max_size=6))
def test_what_is_written_is_read_back(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("tsv") / "x.tsv"
    write_tsv(path, ("source", "target"), rows)
    table = read_tsv(path)
    assert list(zip(table.text("source"), table.text("target"), strict=True)) == rows


def test_line_breaks_in_a_field_stay(tmp_path):
    write_tsv(tmp_path / "x.tsv", ("a", "b"), [("one\ntwo", "three\r\nfour")])
    assert read_tsv(tmp_path / "x.tsv").columns == {"a": ["one\ntwo"], "b": ["three\r\nfour"]}


@pytest.mark.parametrize(
    "field, value",
    [
        ('"quoted"', '"quoted"'),  # nothing inside would have made a CSV writer quote it
        ('"He said ""no"""', 'He said "no"'),
        ('"Yes" and "no"', '"Yes" and "no"'),  # begins and ends with a quote, yet is not quoted
        ('5" disk', '5" disk'),
        ('"open', '"open'),
        ('"', '"'),
        ('""', '""'),
        ("'single'", "'single'"),
        ("  spaces  ", "  spaces  "),
        ("line\u2028separator\x85", "line\u2028separator\x85"),  # only \n ends a row
    ],
)
def test_quoting(field, value, write_text):
    path = write_text("x.tsv", f"a\tb\n{field}\tz\n")
    assert read_tsv(path).columns == {"a": [value], "b": ["z"]}


def test_a_tab_inside_a_quoted_field(write_text):
    assert read_tsv(write_text("x.tsv", 'a\tb\n"x\ty"\tz\n')).columns == {"a": ["x\ty"], "b": ["z"]}


def test_literal_leaves_quotes_alone(write_text):
    assert read_tsv(write_text("x.tsv", 'a\tb\n"x"\tz\n'), "text").columns["a"] == ['"x"']


def test_marks_and_line_ends_of_other_systems(write_text):
    path = write_text("x.tsv", b"\xef\xbb\xbfsource\ttarget\r\na\tb\r\n\r\nc\td")
    table = read_tsv(path)
    assert table.columns == {"source": ["a", "c"], "target": ["b", "d"]}
    assert [table.where(i) for i in range(2)] == [f"{path}:2", f"{path}:4"]
    assert read_header(path) == ["source", "target"]


def test_mappings_are_reached_by_dots(write_jsonl):
    path = write_jsonl(
        "x.jsonl", {"translation": {"en": "cat", "de": "Katze"}}, {"translation": {"en": "dog", "de": None}}
    )
    table = read_table(path)
    assert table.names() == ["translation.en", "translation.de"]
    assert table.text("translation.en") == ["cat", "dog"]
    assert table.text("translation.de") == ["Katze", ""]


def test_a_column_whose_name_has_a_dot(write_jsonl):
    assert read_table(write_jsonl("x.jsonl", {"a.b": "c"})).text("a.b") == ["c"]


def test_numbers_become_text(write_jsonl):
    assert read_table(write_jsonl("x.jsonl", {"a": 3}, {"a": 2.5}, {"a": None})).text("a") == ["3", "2.5", ""]


def test_lines_keep_blank_ones_but_for_the_last_end():
    assert decode_lines(b"a\n\nb\n", "x") == ["a", "", "b"]
    assert decode_lines(b"", "x") == []
    assert decode_lines(b"\n", "x") == [""]


def test_where_bytes_are_not_utf8():
    with pytest.raises(RequestError, match=r"^x:2: not UTF-8 text at byte 4 of the line \(0xe4\)"):
        decode_lines("ok\nKuä\n".encode("latin-1").replace(b"Ku", b"Kuh"), "x")


def test_columns_stand_in_their_order_and_the_nearest_is_named():
    error = str(no_column("x.tsv", "sorce", ["target", "id", "source"]))
    assert error == "x.tsv: no column 'sorce'; it has: target, id, source; is 'source' meant?"
    assert str(no_column("x.tsv", "de", ["fr", "a,b", " c"])) == "x.tsv: no column 'de'; it has: fr, 'a,b', ' c'"
    assert listed([]) == "none"
    assert listed(f"c{i}" for i in range(40)).endswith("c28, c29, … (40 columns)")


@pytest.mark.parametrize("kind", [pyarrow.binary(), pyarrow.large_binary()])
def test_texts_that_a_parquet_file_keeps_as_bytes_are_texts(tmp_path: Path, kind: Any) -> None:
    cells = ["a b", "dé 中", None, ""]
    raw = [cell if cell is None else cell.encode() for cell in cells]
    table = pyarrow.table({"source": pyarrow.array(raw, kind), "target": ["1", "2", "3", "4"]})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    assert read_table(tmp_path / "x.parquet").columns["source"] == cells
    beside = table.append_column("features", pyarrow.array([[[1.0, 2.0]]] * 4))
    pyarrow.parquet.write_table(beside, tmp_path / "y.parquet")
    assert read_arrow(tmp_path / "y.parquet").table.columns["source"] == cells


def test_bytes_that_are_no_text_are_refused_with_their_row(tmp_path: Path) -> None:
    raw = [b"good"] * 30 + [b"\xff\xfe\x00bad"]
    pyarrow.parquet.write_table(pyarrow.table({"source": raw, "target": ["t"] * 31}), tmp_path / "x.parquet")
    with pytest.raises(RequestError, match=r"x\.parquet:31: 'source' is a bytes; it should be text"):
        read_pairs(tmp_path / "x.parquet")


@pytest.mark.parametrize("ending", [".npy", ".wav", ".flac"])
def test_bytes_that_are_files_are_opened_by_how_they_begin(tmp_path: Path, ending: str) -> None:
    out, wave = io.BytesIO(), np.sin(np.arange(8000) / 9).astype(np.float32)
    if ending == ".npy":
        np.save(out, wave.reshape(100, 80))
    else:
        soundfile.write(out, wave, 8000, format=ending[1:].upper())
    table = pyarrow.table({"features": [out.getvalue()] * 3, "text": ["a", "b", "c"]})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    found = read_manifest(tmp_path / "x.parquet")
    assert [each.target for each in found] == ["a", "b", "c"]
    assert found.features(2).shape[1] == 80
