"""Bytes of any system become the lines that their writer meant, or are told in one line."""

from __future__ import annotations

import gzip
import io

import pytest

from sourcewise.data.open import open_sources
from sourcewise.data.readers.lines import decode_lines, line_windows
from sourcewise.data.readers.pairs import read_pairs
from sourcewise.errors import RequestError

LINES = ["source\ttarget", "Käse\tcheese", "zwei\ttwo", "drei \u2028 vier\tthree\x85four", "a\x0bb\x0cc\x1cd\te"]


def _joined(end: str, lines: list[str] = LINES) -> str:
    return end.join(lines) + end


READ = {
    "unix": _joined("\n").encode(),
    "windows": _joined("\r\n").encode(),
    "old Macs": _joined("\r").encode(),
    "Acorn": _joined("\n\r").encode(),
    "written twice": _joined("\r\r\n").encode(),
    "unix and windows": (LINES[0] + "\r\n" + _joined("\n", LINES[1:])).encode(),
    "no last end": _joined("\r")[:-1].encode(),
    "Ctrl-Z": _joined("\r\n").encode() + b"\x1a",
    "marked": b"\xef\xbb\xbf" + _joined("\n").encode(),
    "marked twice": b"\xef\xbb\xbf" * 2 + _joined("\n").encode(),
    "UTF-16 little": b"\xff\xfe" + _joined("\r\n").encode("utf-16-le"),
    "UTF-16 big": b"\xfe\xff" + _joined("\r").encode("utf-16-be"),
    "UTF-32 little": b"\xff\xfe\0\0" + _joined("\n").encode("utf-32-le"),
    "UTF-32 big": b"\0\0\xfe\xff" + _joined("\n").encode("utf-32-be"),
}


@pytest.mark.parametrize("case", READ)
def test_marks_and_line_ends_of_every_system(case, write_text):
    assert decode_lines(READ[case], "x") == LINES
    assert [line for part in line_windows(io.BytesIO(READ[case]), "x", 2) for line in part] == LINES
    found = read_pairs(write_text("x.tsv", READ[case]))
    assert [f"{e.source}\t{e.target}" for e in found] == LINES[1:]
    assert [e.source for e in open_sources(write_text("x.txt", READ[case]))] == LINES


REFUSED = {
    "mixed": (b"a\nb\rc\nd\re\n", r"x:2: a carriage return \(\\r\) within a line; 2 stand alone beside 3 lines"),
    "mixed late": (b"a\r\nb\r\nc\rd\r\n", r"x:3: a carriage return"),
    "a NUL": (b"ab\nc\0d\nef\n", "x:2: a NUL byte; no text has one"),
    "a tail of NULs": (b"ab\ncd\n" + b"\0" * 64, "x:3: the first of 64 NUL bytes"),
    "NULs in a UTF-16": ("a\nb\0c\n".encode("utf-16"), "x:2: a NUL byte"),
    "UTF-16 unmarked": (_joined("\n").encode("utf-16-le"), "x: is UTF-16LE without a byte order mark"),
    "UTF-16 unmarked, big": ("你好吗\n我很好\n".encode("utf-16-be"), "x: is UTF-16BE without"),
    "UTF-32 unmarked": (_joined("\r\n").encode("utf-32-be"), "x: is UTF-32BE without"),
    "cut UTF-16": (b"\xff\xfea", "has the mark of UTF-16, but cannot be read so at byte"),
    "ANSI": (
        "a\nKäse\nb\nÖl\n".encode("cp1252"),
        r"x:2: not UTF-8 text at byte 2 of the line \(0xe4\); 2 lines are not",
    ),
    "gzip": (gzip.compress(b"a\n"), r"x: is compressed \(gzip\); unpack it first"),
    "a spreadsheet": (b"PK\x03\x04\x14\0", "x: is a zip archive, as spreadsheets are"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_text_is_named(case):
    data, message = REFUSED[case]
    with pytest.raises(RequestError, match=message) as caught:
        decode_lines(data, "x")
    assert str(caught.value).isprintable()
    if case != "a NUL":  # outputs are written for each line
        with pytest.raises(RequestError, match=message):
            list(line_windows(io.BytesIO(data), "x", 100))


def test_lines_of_later_windows_keep_their_numbers():
    data = b"".join(b"line %d\n" % i for i in range(10)) + b"one\rtwo\n"
    with pytest.raises(RequestError, match="x:11: a carriage return"):
        list(line_windows(io.BytesIO(data), "x", 4))


def test_sources_keep_a_nul_and_tell_of_it(write_text):
    found = open_sources(write_text("x.txt", b"ab\nc\0d\n"))
    assert [e.source for e in found] == ["ab", "c\0d"]
    assert [note.what for note in found.notes] == [
        "1 lines hold control characters such as NUL, kept; are they damaged, or of another encoding?"
    ]


def test_a_mark_inside_is_text():
    assert decode_lines("a\n\ufeffb\n".encode(), "x") == ["a", "\ufeffb"]
    assert list(line_windows(io.BytesIO("a\n\ufeffb\n".encode()), "x", 1)) == [["a"], ["\ufeffb"]]
