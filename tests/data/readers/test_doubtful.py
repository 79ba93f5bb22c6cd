"""Texts that were damaged before they came here are read as they stand, and told with their count."""

from __future__ import annotations

import json

import pytest

from sourcewise.config import DataConfig, DatasetConfig
from sourcewise.data.open import config_for, open_dataset, open_sources
from sourcewise.data.readers.doubtful import doubts, is_coded_twice, other_ends
from sourcewise.data.readers.pairs import read_pairs
from sourcewise.errors import RequestError


def _twice(text: str, codec: str = "cp1252") -> str:
    """UTF-8 that was read as another encoding."""
    return text.encode().decode(codec)


DAMAGED = {
    "Käse Öl": ([_twice("Käse"), "Käse", _twice("das Öl ist für Grüße")], 2, "are UTF-8 that was read as another"),
    "French": ([_twice("l’été"), _twice("déjà vu"), "déjà vu"], 2, "are UTF-8 that was read as another"),
    "Greek": ([_twice("καλη", "latin-1"), "καλη"], 1, "are UTF-8 that was read as another encoding"),
    "Chinese": (["你好", _twice("你好吗", "latin-1")], 1, "are UTF-8 that was read as another encoding"),
    "lost": (["K\ufffdse", "ok", "\ufffd\ufffd"], 2, "hold \ufffd (U+FFFD): a decoder could not read"),
    "joined files": (["a", "\ufeffb"], 1, "hold a byte order mark (U+FEFF), kept"),
    "e-mail in Japanese": (["世界".encode("iso2022_jp").decode("ascii")], 1, "are ISO-2022"),
    "UTF-16 in one line": (["привет".encode("utf-16-le").decode("utf-8", "replace")], 1, "hold control characters"),
    "NUL": (["a\0b", "c"], 1, "hold control characters such as NUL"),
    "backspaces": (["a\x08b", "c\x7f"], 2, "hold control characters"),
    "HTML": (["R&amp;D", "f&uuml;r &#39;x&#39;", "AT&T; x & y", "&ok;"], 2, "hold characters as HTML writes them"),
    "escapes": (["H\\u00e4us", "a \\user", "gr=C3=BCn", "a=B1 =C3"], 2, "hold characters as numbers"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_what_is_damaged_is_counted(case):
    texts, count, what = DAMAGED[case]
    first = next(i for i, text in enumerate(texts) if any(True for _ in doubts([text], "lines")))
    found = [(row, said) for row, said in doubts(texts, "lines") if what in said]
    assert [(row, said.split(" ")[0]) for row, said in found] == [(first, str(count))]


@pytest.mark.parametrize(
    "text",
    [
        "Käse, Öl und Grüße: „Ö“, «É», 25 °C, £5, ½",
        "AMANHÃ…",
        "NO SÉ…",
        "SÃO PAULO, NÃO",
        "CAFÉ–BAR",
        "Ünïcödé — “déjà vu”…",
        "naïve façade ¿Qué? ¡Sí!",
        "a\tb\x0bc\x0cd\x1ce\x85f\u2028g",
        "\x1b[31mred\x1b[0m",
        "привет, 你好, שלום, ไทย, क्षत्रिय, \U0001f469\u200d\U0001f469",
        "plain",
    ],
)
def test_what_is_meant_is_no_news(text):
    assert not is_coded_twice(text) and not list(doubts([text, text], "lines"))


@pytest.mark.parametrize("name", ["x.txt", "x.tsv", "x.jsonl", "x.json", "documents"])
def test_every_kind_of_file_tells(name, write_text):
    bad, good = _twice("Käse"), "Käse"
    turns = [{"from": "human", "value": bad}, {"from": "gpt", "value": good}]
    content = {
        "x.tsv": f"source\ttarget\n{bad}\tx\n{good}\ty\n",
        "x.jsonl": f'{{"source": "{bad}", "target": "x"}}\n',
        "x.json": json.dumps([{"id": "1", "conversations": turns}]),
    }.get(name, f"{bad}\n{good}\n")
    path = write_text(name if "." in name else "x.txt", content)
    if name == "documents":
        found = open_dataset(DatasetConfig(text=str(path)), DataConfig())
    else:
        found = open_sources(path) if name == "x.txt" else open_dataset(config_for(str(path)))
    (note,) = found.notes
    assert "are UTF-8 that was read as another encoding" in note.what and note.what.startswith("1 ")


DOCUMENTS = {
    "SubRip": (
        "1\n00:00:01,000 --> 00:00:02,000\nHallo\n\n2\n00:00:03,000 --> 00:00:04,000\nWelt\n",
        "2 lines are times",
    ),
    "WebVTT": ("WEBVTT\n\n00:01.000 --> 00:02.000\nHallo\n", "1 lines are times of subtitles"),
    "ELAN": ('<?xml version="1.0"?>\n<ANNOTATION_DOCUMENT>\n', "begins as XML or HTML"),
    "a page": ("\n<!DOCTYPE html>\n<p>Hallo</p>\n", "begins as XML or HTML"),
    "JSON": ('{"source": "a"}\n{"source": "b"}\n', "lines are JSON, read as texts with their braces"),
    "an arrow": ("a --> b\n<3 you\nat 10:30 --> 11:00\n", ""),
    "a tag": ("<b>Hallo</b> Welt\nx\n", ""),
    "a set": ("{a}\n{'b'}\n", ""),
}


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_documents_whose_lines_are_no_texts(kind, write_text):
    content, what = DOCUMENTS[kind]
    found = open_sources(write_text("x.txt", content))
    assert len(found) == len(content.splitlines())
    assert [what in note.what for note in found.notes] == ([True] if what else [])


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("x.xlsx", "export the sheet"),
        ("x.tsv.gz", "unpack it first"),
        ("x.srt", "a row for each pair"),
        ("x.doc", "paste"),
    ],
)
def test_files_that_hold_no_pairs_say_what_to_do(name, hint, write_text):
    with pytest.raises(RequestError, match=hint):
        read_pairs(write_text(name, "a\tb\n"))


@pytest.mark.parametrize("mark", ["\x85", "\u2028", "\u2029", "\x1e", "\x0c"])
def test_line_ends_of_further_systems_are_suspected_where_there_are_no_others(mark, write_text):
    (note,) = open_sources(write_text("x.txt", f"a{mark}b{mark}c{mark}")).notes
    assert note.what == f"one line, in which 2 times U+{ord(mark):04X} stands: are these line ends? Write \\n for them"
    assert not other_ends([f"a{mark}b"]) and not other_ends([f"a{mark}b{mark}c", "d"])


@pytest.mark.parametrize("blank", ["\u3164", "\u2800", "\u202b\u202c", "\ufe0f", "\u115f\u1160", "\uffa0 \u2063"])
def test_what_nobody_sees_is_empty(blank, write_text):
    with pytest.raises(RequestError, match=r"x\.tsv:2: the target is empty"):
        open_dataset(config_for(str(write_text("x.tsv", f"source\ttarget\na\t{blank}\nb\tc\n"))))


@pytest.mark.parametrize(
    "start, what",
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", r"is a workbook of Excel \(\.xls\); export a \.csv"),
        (b"%PDF-1.7\n", "is a PDF"),
        (b"{\\rtf1\\ansi", "is a rich text"),
        (b"SQLite format 3\0", "is a database of SQLite"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
    ],
)
@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.txt", "x.jsonl"])
def test_other_kinds_of_files_are_named(start, what, name, write_text):
    path = write_text(name, start + b"\0" * 40)
    with pytest.raises(RequestError, match=what):
        open_sources(path)


@pytest.mark.parametrize("codec", ["gb18030", "cp932", "cp949", "big5", "cp1251"])
def test_no_encoding_is_advised_that_would_read_other_letters(codec, write_text):
    text = {"cp949": "안녕", "cp1251": "привет", "cp932": "こんにちは"}.get(codec, "世界")
    with pytest.raises(RequestError, match="where ENCODING is its writer's") as caught:
        open_sources(write_text("x.txt", text.encode(codec)))
    assert codec.upper() in str(caught.value)


@pytest.mark.parametrize("data", [b"a \xed\xa0\xbd\xed\xb8\x80\n", b"a\xc0\x80b\n"])
def test_utf_8_of_java(data, write_text):
    with pytest.raises(RequestError, match="Java or Oracle wrote it"):
        open_sources(write_text("x.txt", data))
