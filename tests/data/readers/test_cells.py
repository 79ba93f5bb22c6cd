"""Cells of JSON, Parquet and pandas become texts that look as they did, or are told."""

from __future__ import annotations

import datetime
import decimal
import json
import math

import pytest

from sourcewise.data.readers.cells import Written, as_texts
from sourcewise.data.readers.pairs import read_pairs
from sourcewise.errors import RequestError


def _words(values):
    return [what for _, what in as_texts(values, "t").remarks]


@pytest.mark.parametrize(
    "values, texts",
    [
        (["a", None, math.nan, decimal.Decimal("nan")], ["a", "", "", ""]),
        ([1, 2, 12345678901234567890], ["1", "2", "12345678901234567890"]),
        ([1.0, math.nan, 3.0], ["1", "", "3"]),  # whole numbers that pandas made floats for the sake of a gap
        ([1.0, 2.5], ["1.0", "2.5"]),
        ([Written("1.50"), Written("1e30"), Written("2E-3")], ["1.50", "1e30", "2E-3"]),
        ([decimal.Decimal("1.50"), decimal.Decimal("2")], ["1.50", "2"]),
        (["x", 3.0, 4], ["x", "3", "4"]),
        ([-0.5, 1e16], ["-0.5", "1e+16"]),
    ],
)
def test_numbers_keep_their_looks(values, texts):
    found = as_texts(values, "t")
    assert found.texts == texts and not found.wrong


def test_what_is_not_plain_is_told():
    assert _words(["a", "b"]) == _words([1, 2]) == _words([0.5, 1.5]) == []
    assert _words([1.0, None, 3.0]) == ["2 whole numbers of 't' are floats: written without .0"]
    assert _words(["x", 2, 3]) == ["'t' has 1 texts and 2 numbers; the numbers are read as text"]
    assert _words(["x", "nan", "None", "nan"]) == ["3 cells of 't' are the word nan, None: taken as text"]
    assert _words(["1.0", "", "12.0"])[0].startswith("all of 't' are numbers that end in .0, as pandas writes")
    assert _words(["1.0", "", "2.5"]) == []


@pytest.mark.parametrize(
    "value, what",
    [
        (math.inf, "is infinite"),
        (-math.inf, "is infinite"),
        (True, "is a bool"),
        (["a"], "is a list"),
        ({"en": "a"}, "is a dict"),
        (b"a", "is a bytes"),
        (datetime.datetime(2024, 1, 2), "is a datetime"),
    ],
)
def test_what_is_no_text_makes_its_row_a_bad_one(value, what):
    found = as_texts(["x", value, "y"], "t")
    assert found.texts == ["x", "", "y"] and list(found.wrong) == [1] and what in found.wrong[1]


@pytest.mark.parametrize("column", ["source", "target"])
@pytest.mark.parametrize("empty", [None, math.nan, "", "  ", "\u00a0"])
def test_empty_cells_are_refused_and_counted(column, empty, write_jsonl):
    rows = [{"source": f"s{i}", "target": f"t{i}"} for i in range(6)]
    for i in (1, 4):
        rows[i][column] = empty
    with pytest.raises(RequestError) as caught:
        read_pairs(write_jsonl("x.jsonl", *rows))
    assert f"x.jsonl:2: the {column} is empty" in str(caught.value)
    assert f"(2 of 6 rows are bad: the {column} is empty (2: lines 2, 5))" in str(caught.value)
    found = read_pairs(write_jsonl("x.jsonl", *rows), skip_bad=True)
    assert [e.source for e in found] == ["s0", "s2", "s3", "s5"] and [e.id for e in found] == ["1", "3", "4", "6"]
    assert [(n.where[-2:], n.what) for n in found.notes] == [
        (":2", f"left out (skip_bad): the {column} is empty"),
        (":5", f"left out (skip_bad): the {column} is empty"),
    ]


def test_json_numbers_as_they_are_written(write_text):
    lines = '{"source": 1.50, "target": 0.1}\n{"source": 2E3, "target": 7}\n'
    found = read_pairs(write_text("x.jsonl", lines))
    assert [(e.source, e.target) for e in found] == [("1.50", "0.1"), ("2E3", "7")]


def test_kinds_of_wrong_cells_are_counted_apart(write_jsonl):
    targets = ["a", True, {"b": 1}, False, math.inf, "c"]
    with pytest.raises(RequestError) as caught:
        read_pairs(write_jsonl("x.jsonl", *({"source": "s", "target": t} for t in targets)))
    message = str(caught.value)
    assert (
        "x.jsonl:2: 'target' is a bool; it should be text (4 of 6 rows are bad: 'target' is a bool (2: lines 2, 4)"
        in message
    )
    assert "'target' is a dict (1: line 3)" in message and "'target' is infinite (1: line 5)" in message


def test_parquet_of_every_kind(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def read(values, **how):
        table = pyarrow.table({"source": [f"s{i}" for i in range(len(values))], "target": values})
        parquet.write_table(table, tmp_path / "x.parquet")
        return [e.target for e in read_pairs(tmp_path / "x.parquet", **how)]

    assert read(pyarrow.array([0.1, 2.5], pyarrow.float32())) == ["0.1", "2.5"]
    assert read(pyarrow.array(["x", "y", "x"]).dictionary_encode()) == ["x", "y", "x"]
    assert read(pyarrow.array([1.0, math.nan, 3.0]), skip_bad=True) == ["1", "3"]
    assert read(pyarrow.array([1, None, 3]), skip_bad=True) == ["1", "3"]
    with pytest.raises(RequestError, match="'target' is a bytes; it should be text"):
        read(pyarrow.array([b"x", b"\xff\x00"]))
    assert read(pyarrow.array([b"x", "é".encode()])) == ["x", "é"]


def test_tables_written_by_pandas(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"source": ["a\tb", 'c "d"', "e\nf", "g"], "target": [1, 2, None, 4]})
    for name, write in {"x.tsv": lambda p: frame.to_csv(p, sep="\t", index=False), "x.csv": frame.to_csv}.items():
        write(tmp_path / name)
        found = read_pairs(tmp_path / name, skip_bad=True)
        assert [(e.source, e.target) for e in found] == [("a\tb", "1.0"), ('c "d"', "2.0"), ("g", "4.0")]
        assert any("end in .0" in note.what for note in found.notes)
    frame.to_json(tmp_path / "x.jsonl", orient="records", lines=True)
    assert [e.target for e in read_pairs(tmp_path / "x.jsonl", skip_bad=True)] == ["1", "2", "4"]
    frame.to_csv(tmp_path / "n.tsv", sep="\t", index=False, na_rep="nan")
    assert any("the word nan: taken as text" in note.what for note in read_pairs(tmp_path / "n.tsv").notes)


def test_a_hundred_bad_rows_are_one_line(write_text):
    rows = "".join(f"s{i}\t{'' if i % 2 else 't'}\n" for i in range(200))
    with pytest.raises(RequestError) as caught:
        read_pairs(write_text("x.tsv", "source\ttarget\n" + rows))
    assert "(100 of 200 rows are bad: the target is empty (100: lines 3, 5, 7, …))" in str(caught.value)
    assert len(str(caught.value)) < 400 and json.dumps(str(caught.value)).count("\\n") == 0


def test_nothing_left_is_refused_even_where_rows_may_be_left_out(write_text):
    with pytest.raises(RequestError, match=r"x\.tsv:2: the target is empty.*2 of 2 rows"):
        read_pairs(write_text("x.tsv", "source\ttarget\na\t\nb\t\n"), skip_bad=True)


@pytest.mark.parametrize("word", ["NA", "N/A", "#N/A", "#REF!", "\\N", "<NA>", "NULL"])
def test_what_programs_write_for_nothing_is_told(word):
    assert _words(["x", word, "y"]) == [f"1 cells of 't' are the word {word}: taken as text"]


@pytest.mark.parametrize("unseen", ["\u200b", "\ufeff", " \u2060 ", "\u200e\u200f", "\u3000\u00ad"])
def test_texts_that_show_nothing_are_empty(unseen, write_text):
    path = write_text("x.tsv", f"source\ttarget\na\tb\nc\t{unseen}\n{unseen}\td\ne\tf\u200dg\n")
    with pytest.raises(RequestError, match=r"the target is empty \(1: line 3\), the source is empty \(1: line 4\)"):
        read_pairs(path)
    assert [e.target for e in read_pairs(path, skip_bad=True)] == ["b", "f\u200dg"]


def test_a_name_twice_is_never_the_last_one_in_silence(write_text, tmp_path):
    with pytest.raises(RequestError, match=r"x\.jsonl:2: not JSON: 'source' is there twice in one object"):
        read_pairs(write_text("x.jsonl", '{"source":"a","target":"b"}\n{"source":"a","target":"b","source":"c"}\n'))
    with pytest.raises(RequestError, match="'de' is there twice"):
        read_pairs(write_text("y.jsonl", '{"t": {"de": "a", "de": "b"}, "target": "c"}\n'), source="t.de")
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table([["a"], ["b"], ["c"]], names=["source", "target", "source"])
    parquet.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(RequestError, match=r"x\.parquet: two columns are called 'source'"):
        read_pairs(tmp_path / "x.parquet")


def test_a_folder_of_parquet_parts_is_called_one(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "x.parquet").mkdir()
    with pytest.raises(RequestError, match=r"x\.parquet: a folder of parts, not a file"):
        read_pairs(tmp_path / "x.parquet")


@pytest.mark.parametrize(
    "name, hint", [("train.de", "paste SOURCES TARGETS"), ("x.json", "orient='records', lines=True")]
)
def test_files_of_other_kinds_are_told_the_way(name, hint, write_text):
    with pytest.raises(RequestError, match=hint):
        read_pairs(write_text(name, "a\n"))
