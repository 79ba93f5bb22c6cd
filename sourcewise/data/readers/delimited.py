"""Reads tables of text, .tsv and .csv of any writer, and writes our own .tsv.

The columns of a .tsv are separated by tabs; the separator of a .csv is inferred from its header. Whether quotes are
removed is inferred from all of them together (`quoting.py`). Rows keep the number of their first line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from sourcewise.data.readers.lines import decode_text, line_ends_are_plain, open_binary, split_lines, with_newlines
from sourcewise.data.readers.pieces import Pieces
from sourcewise.data.readers.quoting import are_csv, check_row_ends, csv_rows, quoted, with_row_ends
from sourcewise.data.sequences import BLOCK
from sourcewise.errors import RequestError

DELIMITED = (".tsv", ".csv")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
Quoting = Literal["auto", "csv", "text"]
_EXCEL = re.compile(r"sep=(.)\r?\n")  # Excel's own first line


Window = tuple[list[list[str]], list[int]]  # rows, all cells as text; the first line of each, counted from 1


@dataclass(frozen=True, slots=True)
class _Header:
    names: list[str]
    separator: str
    end: int  # where the rows begin in the text
    line: int  # of the header itself
    quoted: bool


class Delimited:
    """A table of text that is read some rows at a time, so that a file of any size can be read.

    `ragged` has the rows with too few or too many cells and the error of each, complete after `windows`; `remarks` are
    (line, remark on text that is not used as it stands). Raises RequestError that names the line.
    """

    def __init__(self, path: str | Path, quoting: Quoting = "auto") -> None:
        self.name, self.quoting = str(path), quoting
        self._texts = Pieces(path, lambda text: with_row_ends(with_newlines(text)))
        text = next(iter(self._texts))
        if not text.split("\n", 1)[0].strip():
            raise RequestError(f"{path}: empty; its first line should name the columns, {_between(path)} between them")
        self._head = _header(text, self.name)
        self.header = names = self._head.names
        twice = next((each for each in names if each and names.count(each) > 1), None)  # spreadsheets: unnamed ones
        if twice:
            raise RequestError(f"{path}:{self._head.line}: two columns are called {twice!r}; name each once")
        self.ragged: dict[int, str] = {}
        self.remarks: list[tuple[int, str]] = []
        if self._head.separator != _usual(self.name):
            between = SEPARATORS.get(self._head.separator, "this")
            self.remarks.append((self._head.line, f"{between} stand between its columns"))
        self._come_off = self._look_at_quotes()

    def windows(self) -> Iterator[Window]:
        """Yields the rows, some at a time; empty lines are skipped. Rows are given the width of the header."""
        count, wide, ended = 0, 0, True
        for rows, lines in self._csv_windows() if self._come_off else self._text_windows():
            ended = ended and not any(row[-1] for row in rows if len(row) > len(self.header))
            wide += _check_widths(rows, count, self.header, self.ragged)
            count += len(rows)
            yield rows, lines
        if count and wide == count:
            between = SEPARATORS.get(self._head.separator, "separators")
            hint = "; has each row a name of its own first, as R writes them? row.names = FALSE leaves it out"
            hint = f"; all rows end in one of the {between}: let the header end so, too" if ended else hint
            self.ragged = {row: what + hint for row, what in self.ragged.items()}

    def _bodies(self) -> Iterator[str]:
        """The pieces of the text, without the header."""
        begin = self._head.end
        for text in self._texts:
            yield text[begin:]
            begin = 0

    def _look_at_quotes(self) -> bool:
        """Whether the quotes around cells are removed."""
        if not self._tell_of_escapes() or self.quoting == "text":
            return False
        head = self._head
        if self.quoting == "csv" or head.quoted or head.separator != "\t":
            return True
        come_off, remark = are_csv(self._bodies, self.name, head.separator, len(head.names), head.line)
        if remark:
            self.remarks.append(remark)
        return come_off

    def _tell_of_escapes(self) -> int:
        """Number of quotes; a remark if all follow a backslash: some writers escape them, our readers keep both."""
        quotes, escaped, first, line = 0, 0, 0, 1
        for text in self._texts:
            quotes, escaped = quotes + text.count('"'), escaped + text.count('\\"')
            if escaped and not first:
                first = line + text.count("\n", 0, text.index('\\"'))
            line += text.count("\n")
        if escaped and escaped == quotes:
            what = (
                f'{escaped:,} quotes stand behind a backslash (\\"), which is kept: was the file written with an '
                "escapechar?"
            )
            self.remarks.append((first, what))
        return quotes

    def _csv_windows(self) -> Iterator[Window]:
        bodies = (body.removesuffix("\x1a") for body in self._bodies())
        rows = csv_rows(self._checked(bodies), self.name, self._head.separator, self._head.line)
        while some := list(islice(rows, BLOCK)):
            yield [row for _, row in some], [line for line, _ in some]

    def _checked(self, bodies: Iterable[str]) -> Iterator[str]:
        for body in bodies:
            check_row_ends(body, self.name, self._head.line)
            yield body

    def _text_windows(self) -> Iterator[Window]:
        before, separator = 0, self._head.separator
        for text in self._texts:
            lines = split_lines(text, self.name, before)
            start = 0 if before else self._head.line
            numbered = [(i, line) for i, line in enumerate(lines[start:], before + start + 1) if line]
            yield [line.split(separator) for _, line in numbered], [number for number, _ in numbered]
            before += len(lines)


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
        names = next(csv_rows([line], name, separator))[1]
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


def _check_widths(rows: list[list[str]], before: int, header: list[str], ragged: dict[int, str]) -> int:
    """Record rows with too few or too many cells and repeated headers, and give all rows the header's width.

    `before` is the number of earlier rows. Returns how many rows had one cell too many.
    """
    width, marked = len(header), ["\ufeff" + header[0], *header[1:]]
    if set(map(len, rows)) <= {width} and header not in rows and marked not in rows:
        return 0  # in C, since tables are long
    wide = sum(len(row) == width + 1 for row in rows)
    for place, row in enumerate(rows):
        if len(row) != width:
            ragged[before + place] = _problem(row, header)
            rows[place] = (row + [""] * width)[:width]
        elif row in (header, marked) and width > 1:
            ragged[before + place] = "the header once more; were files joined? Take it out"
    return wide


def _problem(row: list[str], header: list[str]) -> str:
    """What is wrong with a row that has not as many cells as the header."""
    few = "only " if len(row) < len(header) else ""
    problem = f"{few}{len(row)} fields; the header names {len(header)}: {', '.join(header)}"
    problem += "; does a quoted cell go on in the next line? quoting: csv" * any(cell.startswith('"') for cell in row)
    escapes = any(cell.endswith("\\") for cell in row[:-1])
    return problem + "; a backslash before the separator is no escape here: quote the cell" * escapes


def write_tsv(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table for `Delimited`; cells with a tab, a line break or a quote are quoted as in CSV."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        for row in (header, *rows):
            file.write("\t".join(quoted(cell) for cell in row) + "\n")
