"""Reads tables of text, .tsv and .csv of any writer, and writes our own .tsv.

The columns of a .tsv are separated by tabs; the separator of a .csv is inferred from its header. Whether quotes are
removed is inferred from all of them together (`quoting.py`). Rows keep the number of their first line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sourcewise.data.readers.lines import (
    decode_text,
    line_ends_are_plain,
    open_binary,
    read_bytes,
    split_lines,
    with_newlines,
)
from sourcewise.data.readers.quoting import are_csv, check_row_ends, csv_rows, quoted, with_row_ends
from sourcewise.errors import RequestError

DELIMITED = (".tsv", ".csv")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
Quoting = Literal["auto", "csv", "text"]
_EXCEL = re.compile(r"sep=(.)\r?\n")  # Excel's own first line


@dataclass(slots=True)
class Delimited:
    """A table as in its file, all cells as text; `lines[i]` is the first line of row i, counted from 1."""

    header: list[str]
    rows: list[list[str]]
    lines: list[int]
    ragged: dict[int, str] = field(default_factory=dict)  # rows with too few or too many cells → the error
    remarks: list[tuple[int, str]] = field(default_factory=list)  # (line, remark on text not used as it stands)


@dataclass(frozen=True, slots=True)
class _Header:
    names: list[str]
    separator: str
    end: int  # where the rows begin in the text
    line: int  # of the header itself
    quoted: bool


def read_header(path: str | Path) -> list[str]:
    """The column names of a .tsv or .csv; none if it is empty. Raises RequestError."""
    with open_binary(path) as file:
        try:
            data = file.readline() + file.readline()
            if b"\0" in data or not line_ends_are_plain(data):
                data += file.read()
        except OSError as error:
            raise RequestError(f"{path}: cannot be read ({error.strerror})") from None
    text = with_row_ends(with_newlines(decode_text(data, str(path))))
    return _header(text, str(path)).names if text.strip() else []


def read_delimited(path: str | Path, quoting: Quoting = "auto") -> Delimited:
    """Read a header line and the rows; empty lines are skipped. Raises RequestError that names the line."""
    name = str(path)
    text = with_row_ends(with_newlines(decode_text(read_bytes(path), name)))
    if not text.split("\n", 1)[0].strip():
        raise RequestError(f"{path}: empty; its first line should name the columns, {_between(path)} between them")
    header = _header(text, name)
    names = header.names
    twice = next((each for each in names if each and names.count(each) > 1), None)  # spreadsheets end in unnamed ones
    if twice:
        raise RequestError(f"{path}:{header.line}: two columns are called {twice!r}; name each once")
    found = Delimited(names, [], [])
    if header.separator != _usual(name):
        found.remarks.append((header.line, f"{SEPARATORS.get(header.separator, 'this')} stand between its columns"))
    _tell_of_escapes(text, found)
    if _come_off(text, name, header, quoting, found):
        _take_csv(text, name, header, found)
    else:
        _take_text(text, name, header, found)
    _check_widths(found)
    return found


def _usual(name: str) -> str:
    return "," if name.lower().endswith(".csv") else "\t"


def _between(path: str | Path) -> str:
    return "commas" if _usual(str(path)) == "," else "tab"


def _header(text: str, name: str) -> _Header:
    """The names in the first line, and their separator."""
    excel = _EXCEL.match(text) if _usual(name) == "," else None
    start, number = (excel.end(), 2) if excel else (0, 1)
    end = text.find("\n", start)
    end = len(text) if end < 0 else end + 1
    line = text[start:end].rstrip("\r\n")
    separator = excel[1] if excel else _separator(line, name)
    if '"' not in line:
        return _Header(line.split(separator), separator, end, number, False)
    try:
        names = next(csv_rows(line, name, separator))[1]
    except RequestError:
        return _Header(line.split(separator), separator, end, number, False)
    return _Header(names, separator, end, number, names != line.split(separator))


def _separator(line: str, name: str) -> str:
    """The most frequent separator in the header of a .csv. Raises RequestError if two are equally frequent."""
    if _usual(name) == "\t":
        return "\t"
    outside = re.sub(r'"[^"]*"', "", line)
    counts = {separator: outside.count(separator) for separator in SEPARATORS}
    most = max(counts.values())
    likely = [separator for separator, count in counts.items() if count == most]
    if most and len(likely) > 1:
        likely_names = " and ".join(SEPARATORS[each] for each in likely)
        raise RequestError(f"{name}:1: {likely_names} could stand between its columns; name each column in one word")
    return likely[0] if most else ","


def _come_off(text: str, name: str, header: _Header, quoting: Quoting, found: Delimited) -> bool:
    """Whether the quotes around cells are removed."""
    if '"' not in text or quoting == "text":
        return False
    if quoting == "csv" or header.quoted or header.separator != "\t":
        return True
    come_off, remark = are_csv(text, name, header.separator, len(header.names), header.end)
    if remark:
        found.remarks.append(remark)
    return come_off


def _take_csv(text: str, name: str, header: _Header, found: Delimited) -> None:
    body = text[header.end :].removesuffix("\x1a")
    check_row_ends(body, name, header.line)
    for line, row in csv_rows(body, name, header.separator, header.line):
        found.rows.append(row)
        found.lines.append(line)


def _take_text(text: str, name: str, header: _Header, found: Delimited) -> None:
    separator, rows, numbers = header.separator, found.rows, found.lines
    for number, line in enumerate(split_lines(text, name)[header.line :], start=header.line + 1):
        if line:
            rows.append(line.split(separator))
            numbers.append(number)


def _check_widths(found: Delimited) -> None:
    """Record rows with too few or too many cells and repeated headers, and give all rows the header's width."""
    width, marked = len(found.header), ["\ufeff" + found.header[0], *found.header[1:]]
    if set(map(len, found.rows)) <= {width} and found.header not in found.rows and marked not in found.rows:
        return  # in C, since tables are long
    named_rows = bool(found.rows) and all(len(row) == width + 1 for row in found.rows)
    hint = "; has each row a name of its own first, as R writes them? row.names = FALSE leaves it out" * named_rows
    for place, row in enumerate(found.rows):
        if len(row) != width:
            few = "only " if len(row) < width else ""
            problem = f"{few}{len(row)} fields; the header names {width}: {', '.join(found.header)}"
            opened = any(cell.startswith('"') for cell in row)
            problem += "; does a quoted cell go on in the next line? quoting: csv" * opened
            problem += "; a backslash before the separator is no escape here: quote the cell" * any(
                map(_escapes, row[:-1])
            )
            found.ragged[place] = problem + hint
            found.rows[place] = (row + [""] * width)[:width]
        elif row in (found.header, marked) and width > 1:
            found.ragged[place] = "the header once more; were files joined? Take it out"


def _escapes(cell: str) -> bool:
    return cell.endswith("\\")


def _tell_of_escapes(text: str, found: Delimited) -> None:
    """Remark on quotes if all follow a backslash: some writers escape them so, but our readers keep backslashes."""
    count = text.count('\\"')
    if count and count == text.count('"'):
        line = text.count("\n", 0, text.index('\\"')) + 1
        what = (
            f'{count:,} quotes stand behind a backslash (\\"), which is kept: was the file written with an escapechar?'
        )
        found.remarks.append((line, what))


def write_tsv(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table for `read_delimited`; cells with a tab, a line break or a quote are quoted as in CSV."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        for row in (header, *rows):
            file.write("\t".join(quoted(cell) for cell in row) + "\n")
