"""Decides whether the quotes in a table are those of a CSV writer, to be removed, or part of the texts.

A CSV writer (pandas, R, a spreadsheet) quotes a cell that holds the separator, a line break or a quote, and doubles the
quotes inside; some quote every cell. So the quotes of a file are a writer's only if all of them can be: each quoted
cell is closed and holds a reason for the quotes, and no other cell has a quote. One `"Yes."` or `5" disk` shows that
no writer quoted, and every quote is text. Ambiguous files are reported, never decided silently.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from sourcewise.errors import RequestError

Row = tuple[int, list[str]]  # its line, counted from 1; its cells

_CLOSED = re.compile(r'"[^"]*+(?:""[^"]*+)*+"')
_ALONE = re.compile(r"\r(?!\n)")
SETTLE = "quoting: csv takes them off, quoting: text keeps them"


@dataclass(slots=True)
class Quotes:
    """Counts of the kinds of quoted cells in a file, with the line of the first of each kind."""

    needed: int = 0  # closed, with a separator, line break or doubled quote inside
    needed_line: int = 0
    broken: int = 0  # of these, cells with a separator or line break, on which the rows depend
    idle: int = 0  # closed, without a reason for quotes inside
    idle_line: int = 0
    commas: int = 0  # of these, cells with a comma
    void: int = 0  # of these, empty cells
    stray: int = 0  # lines with a quote where no writer puts one
    stray_line: int = 0
    open_line: int = 0  # a cell whose quotes are never closed

    @property
    def is_csv(self) -> bool:
        """Whether every quote may be a CSV writer's, and at least one must be."""
        return self.needed > 0 and not (self.idle or self.stray or self.open_line)

    @property
    def first(self) -> int:
        """The line of the first quoted cell."""
        return min(line for line in (self.needed_line, self.idle_line) if line)

    @property
    def closed(self) -> int:
        """Number of quoted cells."""
        return self.needed + self.idle


def look(texts: Iterable[str], separator: str, columns: int) -> Quotes:
    """Classify all quotes of a table with `columns` columns, without its header; lines without quotes are skipped fast.

    `texts` are pieces of whole lines. A cell may go on in the next piece. Lines count from the first one.
    """
    found, cell, rest, line = Quotes(), _cell_of(separator), "", 1
    for text in texts:
        text, found.open_line = rest + text, 0
        opened = _look_at_rows(text, line, cell, separator, columns, found)
        line, rest = line + text.count("\n", 0, opened), text[opened:]
    return found


def _look_at_rows(text: str, line: int, cell: re.Pattern[str], separator: str, columns: int, found: Quotes) -> int:
    """Count the quotes of a text that begins in a line; returns where a row begins that does not close, or the end."""
    start, at = 0, text.find('"')
    while at >= 0:
        begin = text.rfind("\n", start, at) + 1 or start
        line += text.count("\n", start, begin)
        end = _look_at_row(text, begin, line, cell, separator, columns, found)
        if found.open_line:
            return begin
        line += text.count("\n", begin, end)
        start, at = end, text.find('"', end)
    return len(text)


def _cell_of(separator: str) -> re.Pattern[str]:
    """Pattern of a complete cell: in closed quotes (group 1), or without quotes (group 2)."""
    gap = re.escape(separator)
    return re.compile(rf'(?:"([^"]*+(?:""[^"]*+)*+)"|([^"{gap}\r\n]*))(?={gap}|\r*\n|\r*\Z)')


def _look_at_row(
    text: str, begin: int, line: int, cell: re.Pattern[str], separator: str, columns: int, found: Quotes
) -> int:
    """Count the quotes of the row at `begin`; returns the start of the next line."""
    quoted: list[str] = []
    bare, at = 0, begin
    while match := cell.match(text, at):
        if match[1] is None:
            bare += 1
        else:
            quoted.append(match[1])
        at = match.end()
        if not text.startswith(separator, at):
            break
        at += 1
    if match and len(quoted) + bare == columns:
        _count(quoted, line, separator, found)
    else:
        if match is None and text.startswith('"', at) and not _CLOSED.match(text, at):
            found.open_line = line
            return len(text)
        found.stray, found.stray_line = found.stray + 1, found.stray_line or line
        at = begin
    end = text.find("\n", at)
    return len(text) if end < 0 else end + 1


def _count(quoted: list[str], line: int, separator: str, found: Quotes) -> None:
    for inside in quoted:
        broken = any(mark in inside for mark in (separator, "\n", "\r"))
        if broken or '"' in inside:
            found.needed, found.needed_line = found.needed + 1, found.needed_line or line
            found.broken += broken
        else:
            found.idle, found.idle_line = found.idle + 1, found.idle_line or line
            found.commas += "," in inside
            found.void += not inside


def are_csv(
    texts: Callable[[], Iterable[str]], name: str, separator: str, columns: int, before: int = 0
) -> tuple[bool, tuple[int, str] | None]:
    """Whether the quotes of a table's rows are to be removed; and a remark (line, words) or None.

    `texts` gives the rows in pieces of whole lines, `before` is the number of lines before them. Raises RequestError
    with the line if some quotes are a CSV writer's and others are not.
    """
    found = look(texts(), separator, columns)
    others = found.idle + found.stray + bool(found.open_line)
    if found.is_csv:
        if found.broken:  # without the quotes the rows would have a wrong number of columns
            return True, None
        line = before + found.first
        return True, (line, f"quotes around {found.closed:,} cells taken off, as a CSV writer's; {SETTLE}")
    if found.idle and not (found.stray or found.open_line) and _quoted_by_habit(texts(), separator, found):
        line = before + found.first
        return True, (line, f"quotes around {found.closed:,} cells taken off: all such are quoted; {SETTLE}")
    if found.needed and found.needed >= others:
        if found.open_line:
            line = before + found.open_line
            raise RequestError(f"{name}:{line}: a quote opens in this row and does not close; {SETTLE}")
        raise RequestError(
            f"{name}:{before + (found.stray_line or found.idle_line)}: this quote is part of a text, that of line "
            f"{before + found.needed_line} seems a CSV writer's; {SETTLE}"
        )
    return False, _kept(found, texts, before)


def _kept(found: Quotes, texts: Callable[[], Iterable[str]], before: int) -> tuple[int, str] | None:
    """A remark on quotes that are kept, if they may surprise."""
    if found.needed:
        remark = f"{found.needed:,} cells in quotes as a CSV writer's, kept with them as all others; {SETTLE}"
        return before + found.needed_line, remark
    if found.open_line:
        return before + found.open_line, f"a quote opens and does not close, taken as text; {SETTLE}"
    if found.void or (found.idle and 2 * found.idle > sum(text.count("\n") for text in texts())):
        remark = f"{found.idle:,} cells in quotes, kept with them: no CSV writer would have put these; {SETTLE}"
        return before + found.idle_line, remark
    return None


def _quoted_by_habit(texts: Iterable[str], separator: str, found: Quotes) -> bool:
    """Whether all cells are quoted or, as by Excel with tabs, exactly those with a comma."""
    bare, separated, commas = False, False, False
    rest = ""
    for text in texts:
        text = rest + text
        if text.count('"') % 2:  # a cell goes on in the next piece
            rest = text
            continue
        outside, rest = _CLOSED.sub("", text), ""
        bare = bare or bool(outside.strip(f"{separator}\r\n"))
        separated, commas = separated or separator in outside, commas or "," in outside
    if not bare:
        return separated
    return found.idle == found.commas >= 3 and separator == "\t" and not commas


def csv_rows(texts: Iterable[str], name: str, separator: str, before: int = 0) -> Iterator[Row]:
    """The rows of a quoted table, given in pieces of whole lines, without empty lines; `before` lines were earlier.

    Raises RequestError with the line of a quote that is not closed, or is closed before the end of its cell.
    """
    csv.field_size_limit(2**31 - 1)
    escaped = False  # whether the last line that was read has a quote behind a backslash

    def lines() -> Iterator[str]:
        nonlocal escaped
        for text in texts:
            for line in io.StringIO(text, newline=""):
                escaped = '\\"' in line
                yield line

    rows = csv.reader(lines(), delimiter=separator, strict=True)
    while True:
        line = before + rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise _unclosed(name, line, before + rows.line_num, error, escaped) from None
        if row:
            yield line, row


def _unclosed(name: str, line: int, seen: int, error: csv.Error, escaped: bool) -> RequestError:
    if "unexpected end" in str(error):
        return RequestError(f"{name}:{line}: a quote opens in this row and does not close; {SETTLE}")
    where = f"line {seen}" if seen > line else "this row"
    inside = 'one inside a quoted cell is doubled ("")'
    inside += ', a backslash before it (\\") is no escape' * escaped
    return RequestError(f"{name}:{line}: a quote closes in {where} before its cell ends; {inside}. {SETTLE}")


def with_row_ends(text: str) -> str:
    """The text with \\r as \\n at the ends of rows, if all \\n are line breaks inside quoted cells (Excel on a Mac)."""
    if "\r" not in text or '"' not in text:
        return text
    outside = _masked(text)
    if "\n" in outside or "\r" not in outside:
        return text
    return "".join("\n" if mark == "\r" else char for char, mark in zip(text, outside, strict=True))


def check_row_ends(text: str, name: str, before: int = 0) -> None:
    """Raises RequestError if one row ends in \\r and others in \\n; \\r inside quoted cells is allowed."""
    if text.count("\r") == text.count("\r\n"):
        return
    alone = _ALONE.search(_masked(text))
    if alone:
        line = before + text.count("\n", 0, alone.start()) + 1
        raise RequestError(
            f"{name}:{line}: a carriage return (\\r) outside of quotes, where rows end in \\n; is it a line end, "
            "or part of a text? Let each row end in \\n, and put quotes around the others"
        )


def _masked(text: str) -> str:
    """A text of the same length without the line ends inside quoted cells."""
    return _CLOSED.sub(lambda cell: cell[0].replace("\n", " ").replace("\r", " "), text)


def quoted(cell: str, separator: str = "\t") -> str:
    """A cell as a CSV writer writes it, quoted only if necessary."""
    needs = any(mark in cell for mark in ('"', separator, "\n", "\r"))
    return '"' + cell.replace('"', '""') + '"' if needs else cell
