"""Which frames of its file a row means, and other whole numbers of a manifest."""

from __future__ import annotations

import re

from sourcewise.data.readers.layouts import Layout
from sourcewise.data.readers.tables import Table
from sourcewise.errors import FaultyData, RequestError


def read_spans(table: Table, layout: Layout, count: int) -> list[tuple[int, int | None]]:
    """(start, stop) of each row; stop None: the end of the file."""
    starts, stops, lengths = (read_numbers(table, c, count) for c in (layout.start, layout.stop, layout.length))
    if layout.length in table.columns and any(x is not None for x in (*starts, *lengths)):
        for row in range(count):
            empty = next((c for c, of in ((layout.start, starts), (layout.length, lengths)) if of[row] is None), None)
            if empty:
                what = f"{empty} is empty" if empty in table.columns else f"there is no column {empty}"
                table.bad.add(row, FaultyData(f"{table.where(row)}: {what}", what))
        return [(start or 0, (start or 0) + (length or 0)) for start, length in zip(starts, lengths, strict=True)]
    to_end = [row for row in range(count) if starts[row] and not stops[row]]
    if to_end:
        end = f"{layout.stop} 0 or nothing" if layout.stop else f"no {layout.length}"
        remark = f"{len(to_end):,} spans with a start and {end}: read to the end of the file"
        table.note(table.lines[to_end[0]], remark)
    return [(start or 0, stop or None) for start, stop in zip(starts, stops, strict=True)]


def read_numbers(table: Table, column: str, count: int) -> list[int | None]:
    """A column of whole numbers; None for empty cells and for a missing column. Other cells make their rows bad."""
    if column not in table.columns:
        return [None] * count
    found: list[int | None] = []
    for i, text in enumerate(table.text(column, count)):
        # pandas writes 12.0 in columns of whole numbers with missing values
        whole = re.fullmatch(r"([0-9]+)(\.0*)?", text.strip())
        if text.strip() and whole is None:
            problem = f"{table.where(i)}: {column} is {text!r}; it should be a whole number of frames"
            table.bad.add(i, RequestError(problem, f"{column} is no whole number"))
        found.append(int(whole[1]) if whole else None)
    return found
