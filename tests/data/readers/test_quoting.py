"""Quotes of a CSV writer come off, quotes that are text stay; nothing of it in silence."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sourcewise.data.open import config_for, open_dataset, open_sources
from sourcewise.data.readers.delimited import read_header, write_tsv
from sourcewise.data.readers.pairs import read_pairs
from sourcewise.errors import RequestError


def _written(rows, header=("source", "target"), **how):
    stream = io.StringIO()
    csv.writer(stream, **{"delimiter": "\t", "lineterminator": "\n", **how}).writerows([header, *rows])
    return stream.getvalue()


def _pairs(path, **how):
    found = read_pairs(path, **how)
    return [(e.source, e.target) for e in found], [note.what for note in found.notes]


@pytest.mark.parametrize(
    "rows",
    [
        [("p", "a\nb\tc"), ("q", "d")],  # pieces with as many tabs as there are columns
        [("p", "one\n\ntwo"), ("q\r\nr", "d"), ("s", "e")],
        [("p", "a\tb"), ('q "x"', 'He said\n"no"')],
        [("p", 'multi\n"quoted" line\n'), ("q", "d")],
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_breaks_and_tabs_inside_cells_as_pandas_writes_them(rows, end, write_text):
    path = write_text("x.tsv", _written(rows, lineterminator=end))
    assert _pairs(path) == (rows, [])


def test_a_row_is_told_by_the_line_it_begins_in(write_text):
    path = write_text("x.tsv", _written([("p", "a\nb\nc"), ("q", "d")]))
    assert [e.where for e in read_pairs(path)] == [f"{path}:2", f"{path}:5"]


TEXTS = ['"Yes."', '"Yes" and "no"', '"a b', '5" disk', 'b"', '"x"y"', "plain", '"', '""', '"He said ""hi"""']


def test_quotes_that_are_text_stay(write_text):
    rows = [(f"s{i}", text) for i, text in enumerate(TEXTS)]
    found, told = _pairs(write_text("x.tsv", "source\ttarget\n" + "".join(f"{s}\t{t}\n" for s, t in rows)))
    assert found == rows
    assert len(told) == 1 and "cells in quotes as a CSV writer's, kept" in told[0] and "quoting: csv" in told[0]


def test_a_few_quoted_sentences_are_no_news(write_text):
    rows = [(f"s{i}", '"Yes."' if i % 5 == 0 else "No.") for i in range(20)]
    assert _pairs(write_text("x.tsv", "source\ttarget\n" + "".join(f"{s}\t{t}\n" for s, t in rows))) == (rows, [])


@pytest.mark.parametrize("opening", ['"I went home', '"a ""b'])
def test_a_quote_that_opens_and_does_not_close_is_told(opening, write_text):
    content = f"source\ttarget\ns1\t{opening}\ns2\tb\n"
    found, told = _pairs(write_text("x.tsv", content))
    assert found == [("s1", opening), ("s2", "b")]
    assert told[0].startswith("a quote opens and does not close, taken as text")
    with pytest.raises(RequestError, match=r"x\.tsv:2: a quote opens in this row and does not close"):
        read_pairs(write_text("x.tsv", content), quoting="csv")


def test_a_csv_that_breaks_off_inside_a_cell_is_refused(write_text):
    content = _written([("s1", "a\nb"), ("s2", 'say "c"')]) + 's3\t"d\ne\n'
    with pytest.raises(RequestError, match=r"x\.tsv:5: a quote opens in this row and does not close"):
        read_pairs(write_text("x.tsv", content))


def test_two_ways_in_one_file_are_refused_until_one_is_said(write_text):
    path = write_text("x.tsv", _written([("s1", "a\nb")]) + 's2\t5" disk\n')
    with pytest.raises(RequestError, match=r"x\.tsv:4: this quote is part of a text, that of line 2 seems a CSV"):
        read_pairs(path)
    assert _pairs(path, quoting="csv")[0] == [("s1", "a\nb"), ("s2", '5" disk')]
    with pytest.raises(RequestError, match=r"x\.tsv:2.*: only 1 fields|x\.tsv:3: only 1 fields"):
        read_pairs(path, quoting="text")


def test_who_quotes_every_cell_quotes_the_header_too(write_text):
    rows = [("a", "Yes."), ("b", 'say "no"'), ("c", "d\te")]
    path = write_text("x.tsv", _written(rows, quoting=csv.QUOTE_ALL))
    assert read_header(path) == ["source", "target"]
    assert _pairs(path) == (rows, [])
    bare = "source\ttarget\n" + path.read_text().split("\n", 1)[1].replace('say ""no""', "no")
    found, told = _pairs(write_text("x.tsv", bare))
    assert found == [("a", "Yes."), ("b", "no"), ("c", "d\te")]
    assert "quotes around 6 cells taken off" in told[0]


def test_excel_quotes_commas_between_tabs(write_text):
    rows = [("a", '"Yes, sir."'), ("b", '"No, no."'), ("c", "d"), ("e", '"One, two"')]
    found, told = _pairs(write_text("x.tsv", "source\ttarget\n" + "".join(f"{s}\t{t}\n" for s, t in rows)))
    assert [target for _, target in found] == ["Yes, sir.", "No, no.", "d", "One, two"]
    assert "quotes around 3 cells taken off" in told[0] and "quoting: text keeps them" in told[0]


def test_doubled_quotes_alone_come_off_and_are_told(write_text):
    path = write_text("x.tsv", _written([("a", 'He said "hi"'), ("b", "c")]))
    found, told = _pairs(path)
    assert found[0] == ("a", 'He said "hi"') and "quotes around 1 cells taken off" in told[0]
    assert _pairs(path, quoting="text")[0][0] == ("a", '"He said ""hi"""')


ROWS = [("a, b", "c; d"), ("Käse", 'say "x"\nand y'), ("e", " f ")]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_csv_whatever_stands_between_its_columns(separator, write_text):
    path = write_text("x.csv", b"\xef\xbb\xbf" + _written(ROWS, delimiter=separator, lineterminator="\r\n").encode())
    found, told = _pairs(path)
    assert found == ROWS
    assert bool(told) == (separator != ",")
    assert [e.source for e in open_sources(path)] == [source for source, _ in ROWS]
    config = config_for(str(path))
    assert config.pairs and [e.target for e in open_dataset(config)] == [target for _, target in ROWS]


def test_excels_own_first_line(write_text):
    path = write_text("x.csv", "sep=;\r\nsource;target\r\na;b\r\n")
    assert read_header(path) == ["source", "target"]
    found = read_pairs(path)
    assert [(e.source, e.target, e.where) for e in found] == [("a", "b", f"{path}:3")]


def test_a_csv_named_tsv_is_named(write_text):
    with pytest.raises(RequestError, match=r"should its name end in \.csv\?"):
        read_pairs(write_text("x.tsv", "source,target\na,b\n"))
    with pytest.raises(RequestError, match="commas and semicolons could stand between"):
        read_pairs(write_text("x.csv", "id,source;target\n1,a;b\n"))


def test_quotes_escaped_by_backslashes_are_told(write_text):
    with pytest.raises(RequestError, match=r"x\.tsv:2: a quote closes in this row before its cell ends; one inside"):
        read_pairs(write_text("x.tsv", '"source"\t"target"\n"a"\t"say \\"b\\" now"\n'))


def test_joined_files_and_ragged_rows_are_all_counted(write_text):
    text = "source\ttarget\na\tb\n\ufeffsource\ttarget\nc\td\ne\nsource\ttarget\n"
    with pytest.raises(RequestError) as caught:
        read_pairs(write_text("x.tsv", text))
    assert "x.tsv:3: the header once more; were files joined?" in str(caught.value)
    assert "3 of 5 rows are bad: not as many fields as the header (3: lines 3, 5, 6)" in str(caught.value)


cells = st.text(st.sampled_from('"\t\n\r,; ab\\'), min_size=1, max_size=6)


@given(rows=st.lists(st.tuples(cells, cells), min_size=1, max_size=5))
def test_what_we_write_is_read_back(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("tsv") / "x.tsv"
    write_tsv(path, ("source", "text"), rows)
    found = read_pairs(path, target=None)
    assert [e.source for e in found] == [source for source, _ in rows]
    assert [e.source for e in read_pairs(path, source="text", target=None)] == [text for _, text in rows]


def test_rows_of_old_macs_with_breaks_inside_their_cells(write_text):
    rows = [("a\nb", "c"), ("d", "e\n\nf"), ("g", 'h "i"')]
    for name, separator in {"x.csv": ",", "y.csv": ";", "z.tsv": "\t"}.items():
        path = write_text(name, _written(rows, delimiter=separator, lineterminator="\r\n").replace("\r\n", "\r"))
        assert read_header(path) == ["source", "target"]
        assert _pairs(path)[0] == rows


def test_a_return_outside_of_quotes_never_splits_a_row(write_text):
    for name, content in {"x.csv": 'source\nhello\rworld\n"a, b"\n', "y.csv": 'source\n"a, b"\nhello\rworld\n'}.items():
        with pytest.raises(RequestError, match=rf"{name}:[23]: a carriage return \(\\r\) outside of quotes"):
            read_pairs(write_text(name, content), target=None)
    kept = read_pairs(write_text("z.csv", 'source\n"a\rb"\nc\n'), target=None)
    assert [e.source for e in kept] == ["a\rb", "c"]


def test_quotes_behind_backslashes_are_told(write_text):
    found, told = _pairs(write_text("x.tsv", _written([("s", 'say "b"')], quoting=csv.QUOTE_NONE, escapechar="\\")))
    assert found == [("s", 'say \\"b\\"')] and told[0].startswith('2 quotes stand behind a backslash (\\")')
    found, told = _pairs(
        write_text("x.csv", _written([("s", 'x "b"')], delimiter=",", quoting=csv.QUOTE_NONE, escapechar="\\"))
    )
    assert "behind a backslash" in told[0]
    assert _pairs(write_text("y.tsv", 'source\ttarget\na\t5" disk, \\"b\\"\n'))[1] == []
    content = _written([("s", "a\tb"), ("t", "c")], quoting=csv.QUOTE_NONE, escapechar="\\")
    with pytest.raises(RequestError, match=r"x\.tsv:2: 3 fields; .*a backslash before the separator is no escape here"):
        read_pairs(write_text("x.tsv", content))


@pytest.mark.parametrize("name, separator", [("x.tsv", "\t"), ("x.csv", ";"), ("y.csv", ",")])
def test_rows_that_begin_with_their_names_as_r_writes_them(name, separator, write_text):
    rows = [("1", "a b", "c d"), ("2", "e", "f")]
    content = _written(rows, delimiter=separator, quoting=csv.QUOTE_ALL)
    with pytest.raises(RequestError, match=r"row\.names = FALSE leaves it out .*2 of 2 rows are bad"):
        read_pairs(write_text(name, content))


def test_columns_without_a_name(write_text):
    assert _pairs(write_text("x.csv", "source;target;;\na;b;;\nc;d;;\n"))[0] == [("a", "b"), ("c", "d")]
    assert _pairs(write_text("x.tsv", "\tsource\ttarget\n0\ta\tb\n"))[0] == [("a", "b")]
    with pytest.raises(RequestError, match="it has: 'source ', ' target'"):
        read_pairs(write_text("x.csv", "source ; target\na;b\n"))
    with pytest.raises(RequestError, match="are these names\\? The first line should name the columns"):
        read_pairs(write_text("x.tsv", "Ein Hund.\tA dog.\nZwei.\tTwo.\n"))


@pytest.mark.parametrize("separator, name", [("\t", "x.tsv"), (",", "x.csv"), (";", "x.csv")])
def test_rows_that_end_in_a_separator_more_than_the_header(separator, name, write_text):
    rows = [["source", "target"], ["a", "b", ""], ["c", "d", ""]]
    path = write_text(name, "".join(separator.join(row) + "\n" for row in rows))
    between = {"\t": "tabs", ",": "commas", ";": "semicolons"}[separator]
    with pytest.raises(RequestError, match=f"all rows end in one of the {between}: let the header end so, too"):
        read_pairs(path)


@pytest.mark.parametrize("line", [2, 4])
def test_a_csv_with_backslashes_before_quotes_says_what_to_write(line, write_text):
    rows = ["source,target", *(['"a","b"'] * (line - 2)), '"he said \\"hi\\"","x"', '"c","d"']
    what = rf'x\.csv:{line}: a quote closes .* doubled \(""\), a backslash before it \(\\"\) is no escape'
    with pytest.raises(RequestError, match=what):
        read_pairs(write_text("x.csv", "\n".join(rows) + "\n"))
