"""Long files are read in pieces, and large ones onto the disk: what is read, and what is said, is the same."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from sourcewise.data import examples, sequences
from sourcewise.data.readers import delimited, pieces, tables
from sourcewise.data.readers.pairs import read_pairs
from sourcewise.data.stored import columns
from sourcewise.data.stored.pairs import stored_pairs
from sourcewise.data.stored.store import Store
from sourcewise.errors import RequestError

HEAD = "source\ttarget\n"
PLAIN = "".join(f"la {i} do\tre {i}, mi\n" for i in range(30))
QUOTED = "".join(f'"la {i}\tdo ""re""\nmi"\t"fa {i}, so"\n' for i in range(9))
LINES = [json.dumps({"source": f"ba {i}", "target": f"do {i}"}) for i in range(20)]

TABLES = {
    "plain": HEAD + PLAIN,
    "no line end": HEAD + PLAIN.rstrip("\n"),
    "empty lines": HEAD + PLAIN.replace("mi\n", "mi\n\n"),
    "windows": (HEAD + PLAIN).replace("\n", "\r\n"),
    "old mac": (HEAD + PLAIN).replace("\n", "\r"),
    "a lone return": HEAD + PLAIN + "la\rdo\tre\n" + PLAIN,
    "mark": "\ufeff" + HEAD + PLAIN,
    "end of DOS": HEAD + PLAIN + "\x1a",
    "utf-16": (HEAD + PLAIN).encode("utf-16"),
    "latin-1": (HEAD + PLAIN + "é\tu\n" + PLAIN + "à\tä\n").encode("latin-1"),
    "nul": HEAD + PLAIN + "\0\tla\n" + PLAIN,
    "wide characters": HEAD + "".join(f"日本 {i}\t𝄞 {i} ß\n" for i in range(40)),
    "blank targets": HEAD + PLAIN + "la\t\n" + PLAIN + "do\t \u200b\n \tso\n",
    "ragged": HEAD + PLAIN + "la\n" + PLAIN + "la\tdo\tre\n",
    "all wide": HEAD + "".join(f"{i}\tla\tdo\n" for i in range(40)),
    "backslash before the tab": HEAD + PLAIN + "la\\\tdo\tre\n",
    "header again": HEAD + PLAIN + HEAD + PLAIN,
    "joined files": HEAD + PLAIN + "\ufeff" + HEAD + PLAIN,
    "csv": HEAD + QUOTED,
    "csv, windows": (HEAD + QUOTED).replace("\n", "\r\n"),
    "text quotes": HEAD + PLAIN + 'he said "yes"\tla\n' + PLAIN + '"Yes."\tno\n',
    "csv and text quotes": HEAD + QUOTED + 'he said "yes"\tla\n' + PLAIN,
    "text quotes, then csv": HEAD + 'he said "yes"\tla\n' + PLAIN + '"a\tb"\tc\n',
    "an open quote": HEAD + PLAIN + '"la\tdo\n' + PLAIN,
    "an open quote after csv": HEAD + QUOTED + '"la\tdo\n' + PLAIN,
    "csv closed far away": HEAD + '"' + PLAIN.replace("\t", " ") + '"\tla\n' + PLAIN,
    "all quoted": HEAD + "".join(f'"la {i}"\t"do {i}"\n' for i in range(30)),
    "quoted as Excel does": HEAD + "".join(f'la {i}\t"do {i}, re"\n' for i in range(30)),
    "half quoted": HEAD + "".join(f'la {i}\t"do {i}"\n' for i in range(30)) + PLAIN,
    "void quotes": HEAD + PLAIN + '""\tla\n',
    "escapes": HEAD + PLAIN + 'he said \\"yes\\"\tla\n' + PLAIN,
    "missing values": HEAD + PLAIN + "nan\tla\n" + PLAIN + "do\tNULL\n",
    "point zero": HEAD + "".join(f"la {i}\t{i}.0\n" for i in range(30)),
    "several targets": "source\ttarget\ttarget2\n" + "".join(f"a {i}\tb\t{'c' * (i % 2)}\n" for i in range(30)),
    "ids and groups": "id\tsource\ttarget\tspeaker\n" + "".join(f"x{i}\ta {i}\tb\ts{i % 3}\n" for i in range(30)),
    "languages": "source\ttarget\tto\n" + "".join(f"a {i}\tb\t{'de' if i % 3 else ''}\n" for i in range(30)),
    "no rows": HEAD,
    "empty": "",
    "other columns": "english\tgerman\n" + PLAIN,
    "our own": "id\treference\toutput\n" + "".join(f"{i}\ta\\tb\tc {i}\\n\n" for i in range(20)),
}
RECORDS = {
    "plain": LINES,
    "blank lines": [line + "\n" for line in LINES],
    "no JSON": [*LINES, "{", *LINES],
    "a key is missing": [*LINES, '{"source": "la"}', *LINES],
    "a late column": [*LINES, '{"source": "la", "target": "do", "id": "x", "target2": "re"}'],
    "numbers": [json.dumps({"source": i / 2, "target": f"{i}"}) for i in range(30)],
    "written numbers": ['{"source": 1.50, "target": "a"}', *LINES, '{"source": 2e3, "target": "b"}'],
    "whole floats": [json.dumps({"source": float(i), "target": f"{i}"}) for i in range(30)],
    "null and NaN": [*LINES, '{"source": null, "target": "a"}', *LINES, '{"source": NaN, "target": "a"}'],
    "infinity, lists": [*LINES, '{"source": Infinity, "target": "a"}', '{"source": ["a"], "target": "a"}'],
    "lists": [json.dumps({"source": f"{i}", "target": ["a", f"b {i}"][: 1 + i % 2]}) for i in range(20)],
    "an empty list": [*LINES, '{"source": "la", "target": []}', *LINES],
    "truth": [*LINES, '{"source": "la", "target": true}', *LINES],
    "surrogates": [*LINES, '{"source": "la", "target": "\\ud800"}'],
    "twice": [*LINES, '{"source": "la", "source": "do", "target": "re"}'],
}
OPTIONS = {
    "languages": {"languages": ("en", "column:to")},
    "other columns": {"source": "english", "target": "german"},
    "our own": {"source": "reference", "target": "output"},
}
EVERY = [
    *((name, "tsv", content) for name, content in TABLES.items()),
    *((name, "csv", content.replace("\t", ";")) for name, content in TABLES.items() if isinstance(content, str)),
    *((name, "jsonl", "\n".join(lines) + "\n") for name, lines in RECORDS.items()),
]


@pytest.fixture
def tiny(monkeypatch):
    """Pieces of a few lines, and blocks of a few items."""
    monkeypatch.setattr(pieces, "SIZE", 60)
    for module in (sequences, delimited, tables, columns, examples):
        monkeypatch.setattr(module, "BLOCK", 7)


def said(read, **options):
    """All that a reader gives, or its error."""
    try:
        found = read(**options)
    except RequestError as error:
        return type(error), str(error), error.kind
    assert [found[i] for i in range(len(found))] == list(found) == list(found[:])
    return list(found), found.name, found.notes


@pytest.mark.parametrize(("name", "ending", "content"), EVERY, ids=[f"{name}.{end}" for name, end, _ in EVERY])
@pytest.mark.parametrize("quoting", ["auto", "csv"])
def test_pieces_say_the_same(name, ending, content, quoting, tmp_path, request):
    path = tmp_path / f"x.{ending}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    options = {"quoting": quoting, **OPTIONS.get(name, {})}
    every = [options | {"skip_bad": skip, "limit": limit} for skip in (False, True) for limit in (None, 25)]
    whole = [said(read_pairs, path=path, **each) for each in every]
    request.getfixturevalue("tiny")
    assert [said(read_pairs, path=path, **each) for each in every] == whole
    store = Store(tmp_path / "store", 0)
    for each, expected in zip(every, whole, strict=True):
        for _ in range(2):  # made, then opened
            assert said(stored_pairs, path=path, store=store, **each) == expected


def test_parquet_on_disk_says_the_same(tmp_path, tiny):
    cells = {
        "texts": [f"la {i}" for i in range(30)],
        "gaps": [None if i % 9 == 4 else f"do {i}" for i in range(30)],
        "numbers": [i * 3 for i in range(30)],
        "floats": [float("nan") if i == 11 else i / 4 for i in range(30)],
        "lists": [["a", "b"] if i % 2 else ["c"] for i in range(30)],
        "translation": [{"en": f"x {i}", "de": f"y {i}"} for i in range(30)],
        "id": list(range(100, 130)),
    }
    table = pyarrow.table({**cells, "short": pyarrow.array([i / 10 for i in range(30)], pyarrow.float32())})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet", row_group_size=11)
    store, path = Store(tmp_path / "store", 0), tmp_path / "x.parquet"
    names = [*cells, "short", "translation.en", "translation.de", "nowhere"]
    for source, target in zip(names, [*names[1:], names[0]], strict=True):
        options = {"path": path, "source": source, "target": target, "skip_bad": True}
        assert said(stored_pairs, store=store, **options) == said(read_pairs, **options), (source, target)


def test_a_long_file_is_never_in_memory_as_a_whole(tmp_path, monkeypatch):
    path = tmp_path / "x.tsv"
    path.write_text(HEAD + PLAIN * 200, encoding="utf-8")
    monkeypatch.setattr(pieces, "SIZE", 1000)
    assert max(map(len, pieces.Pieces(path))) < 1100
    assert "".join(pieces.Pieces(path)) == HEAD + PLAIN * 200


def test_lines_are_counted_across_pieces(tmp_path, tiny):
    path = tmp_path / "x.tsv"
    path.write_text(HEAD + PLAIN + "la\t\n" + PLAIN + "do\n", encoding="utf-8")
    with pytest.raises(RequestError) as error:
        read_pairs(path)
    assert f"{path}:32: the target is empty" in str(error.value)
    assert "2 of 62 rows are bad: the target is empty (1: line 32), not as many fields as the header (1: line 63)" in (
        str(error.value)
    )


def test_a_file_that_changes_is_read_again(tmp_path):
    path, store = Path(tmp_path / "x.tsv"), Store(tmp_path / "store", 0)
    path.write_text(HEAD + PLAIN, encoding="utf-8")
    assert len(stored_pairs(path, store)) == 30
    path.write_text(HEAD + PLAIN + "new\trow\n", encoding="utf-8")
    found = stored_pairs(path, store)
    assert found[-1].source == "new" and len(found) == 31
    assert len(list((tmp_path / "store").iterdir())) == 1
    path.write_text(HEAD + PLAIN + "\trow\n", encoding="utf-8")
    with pytest.raises(RequestError, match="the source is empty"):
        stored_pairs(path, store)
    assert [each.name for each in (tmp_path / "store").iterdir() if each.name.startswith(".")] == []
