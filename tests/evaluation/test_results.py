"""Evaluations on disk: what is written, what is read back, and what is refused."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sourcewise.data.readers.pairs import read_pairs
from sourcewise.errors import RequestError
from sourcewise.evaluation.results import Evaluation, Row, write_atomically


def test_written_and_read_back(tmp_path):
    rows = [Row("a-1", "quelle", "ein Mann", "ein Hund", True, 1.0, 2.0, 3), Row("a-2", "", "", "", False)]
    Evaluation({"bleu": 12.5, "source_bits_ci95": [0.1, 0.2], "examples": 2}, rows).write(tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert (folder / "translations.tsv").read_text(encoding="utf-8") == (
        "id\treference\toutput\na-1\tein Mann\tein Hund\na-2\t\t\n"
    )
    again = Evaluation.from_folder(folder)
    assert again.metrics == {"bleu": 12.5, "source_bits_ci95": [0.1, 0.2], "examples": 2}
    assert again.references == ["ein Mann", ""]
    assert again.outputs == ["ein Hund", ""]
    assert sorted(p.name for p in folder.iterdir()) == ["metrics.json", "translations.tsv"]


def test_figures_that_json_has_not_become_null(tmp_path):
    Evaluation({"loss": math.nan, "ci": (1.0, math.inf), "inner": {"x": -math.inf}}, []).write(tmp_path)
    found = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert found == {"loss": None, "ci": [1.0, None], "inner": {"x": None}}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8)), max_size=4))
def test_any_text_stays_in_its_row_and_column(tmp_path_factory, cells):
    folder = tmp_path_factory.getbasetemp() / "rows"
    Evaluation({}, [Row(a, "", b, c) for a, b, c in cells]).write(folder)
    again = Evaluation.from_folder(folder)
    assert len(again.rows) == len(cells)
    for row, (_, reference, output) in zip(again.rows, cells, strict=True):
        assert (row.reference, row.output) == (reference, output)
    lines = (folder / "translations.tsv").read_bytes().decode()
    assert len(lines.splitlines()) == 1 + len(cells) and all(line.count("\t") == 2 for line in lines.splitlines())


def test_code_is_written_on_a_line_and_read_back(tmp_path):
    code = 'if (a) {\n\tprint("\\n");\r\n}\u2028'
    Evaluation({}, [Row("1", "", code, "\\n is no line end, \\\\ is two")]).write(tmp_path)
    cells = (tmp_path / "translations.tsv").read_text(encoding="utf-8").split("\n")[1].split("\t")
    assert cells == ["1", r'if (a) {\n\tprint("\\n");\r\n}\u2028', r"\\n is no line end, \\\\ is two"]
    row = Evaluation.from_folder(tmp_path).rows[0]
    assert row.reference == code and row.output == "\\n is no line end, \\\\ is two"


TEXTS = ['"Yes."', '"a ""b"" c"', "a\tb\nc", " blank ", 'C:\\new\\temp "x"', '""', '"', "a\r\nb\x00\x1b", "\\u0022"]


@pytest.mark.parametrize(
    "texts", [TEXTS, TEXTS[1:2], TEXTS[1:3], TEXTS[:1], TEXTS[5:6], ['"open'], ["a\nb", '"c ""d"""']]
)
def test_what_is_written_is_read_back_as_pairs(tmp_path, texts):
    """Whatever the quotes look like all together, the readers of pairs change none."""
    Evaluation({}, [Row(f"r{i}", "", text, text[::-1]) for i, text in enumerate(texts)]).write(tmp_path)
    found = read_pairs(tmp_path / "translations.tsv", source="reference", target="output")
    assert [(e.id, e.source, e.target) for e in found] == [(f"r{i}", t, t[::-1]) for i, t in enumerate(texts)]
    assert Evaluation.from_folder(tmp_path).references == texts


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.text(st.sampled_from('"\\\t\n\r nu0 2'), min_size=1, max_size=7).filter(str.strip), min_size=1, max_size=4
    )
)
def test_any_quotes_and_escapes_are_read_back_as_pairs(tmp_path_factory, texts):
    folder = tmp_path_factory.getbasetemp() / "quotes"
    Evaluation({}, [Row("r", "", text, text) for text in texts]).write(folder)
    found = read_pairs(folder / "translations.tsv", source="reference", target="output")
    assert [e.source for e in found] == [e.target for e in found] == texts


def test_somebody_elses_backslashes_stay(tmp_path):
    (tmp_path / "x.tsv").write_text("id\treference\toutput\n1\t\\nu and \\alpha\t\\times\n", encoding="utf-8")
    found = read_pairs(tmp_path / "x.tsv", source="reference", target="output")
    assert (found[0].source, found[0].target) == ("\\nu and \\alpha", "\\times")


def test_an_older_file_with_single_backslashes_is_read_as_it_is(tmp_path):
    Evaluation({}, []).write(tmp_path)
    (tmp_path / "translations.tsv").write_text("id\treference\toutput\n1\tC:\\data\t\\\n", encoding="utf-8")
    assert Evaluation.from_folder(tmp_path).references == ["C:\\data"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.json", None, "metrics.json: no such file"),
        ("metrics.json", b'{\n"a": }', "metrics.json:2: not JSON"),
        ("metrics.json", b"[1]", "JSON object"),
        ("translations.tsv", None, "translations.tsv: no such file"),
        ("translations.tsv", b"id\ttarget\toutput\n", "translations.tsv:1: the columns are id, reference, output"),
        ("translations.tsv", b"id\treference\toutput\na\tb\tc\nd\te\n", "translations.tsv:3: 2 fields"),
        ("translations.tsv", b"id\treference\toutput\na\t\xff\tc\n", "UTF-8"),
    ],
)
def test_broken_folders_are_refused_in_one_line(tmp_path, name, content, message):
    Evaluation({"bleu": 1.0}, [Row("a", "", "b", "c")]).write(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(RequestError, match=message) as caught:
        Evaluation.from_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_write_that_fails_leaves_the_old_file_and_no_part(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    write_atomically(path, "old")

    def full(descriptor, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", full)
    with pytest.raises(RequestError, match=r"metrics\.json: cannot be written \(No space left on device\)"):
        write_atomically(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(RequestError, match="cannot be written"):
        Evaluation({}, []).write(tmp_path / "taken")
