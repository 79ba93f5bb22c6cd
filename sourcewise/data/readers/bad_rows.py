"""Rows that cannot be used: all are found in one pass, and reported in one line, or skipped with notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import methodcaller

from sourcewise.data.examples import Note
from sourcewise.data.sequences import blocks
from sourcewise.errors import FaultyData, RequestError

LEFT_OUT = "left out (skip_bad)"  # beginning of a row's note
SHOWN = 3  # lines named per kind of error
_SPACES = "".join(char for code in range(0x3001) if (char := chr(code)).isspace())
_UNSEEN = (
    "\u00ad\u034f\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\u2064\ufeff"  # no glyph, no width
    "\u115f\u1160\u2800\u3164\uffa0"  # fillers of Hangul, and a cell of Braille without dots
    "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # directions
    + "".join(map(chr, range(0xFE00, 0xFE10)))  # variants of a glyph before them
)
_seen = methodcaller("strip", _SPACES + _UNSEEN)


def blank_rows(texts: Sequence[str]) -> list[int]:
    """Indices of blank texts: of spaces and characters without a glyph."""
    found: list[int] = []
    for start, block in blocks(texts):
        seen = list(map(_seen, block))  # in C, since sets are long
        found += [start + row for row, text in enumerate(seen) if not text] if "" in seen else []
    return found


@dataclass(slots=True)
class BadRows:
    """The bad rows of a set, each with its first error."""

    name: str  # the file or set, for messages
    found: dict[int, RequestError] = field(default_factory=dict)

    def add(self, row: int, error: RequestError) -> None:
        """Record that a row cannot be used."""
        self.found.setdefault(row, error)

    def add_blank(self, texts: Sequence[str], wheres: Sequence[str], kind: str, cure: str) -> None:
        """Record the rows with a blank text as faulty data."""
        for row in blank_rows(texts):
            self.add(row, FaultyData(f"{wheres[row]}: {kind}; {cure}", kind))

    def settle(self, wheres: Sequence[str], skip: bool = False) -> tuple[Sequence[int], list[Note]]:
        """(rows to keep, notes on skipped rows); `wheres` has the place of every row.

        Unless `skip`, raises RequestError that counts the bad rows, names the first few, and says how to skip them;
        also if no row would be left. It is FaultyData if only the contents of the files are wrong.
        """
        count = len(wheres)
        bad = {row: error for row, error in sorted(self.found.items()) if row < count}
        if bad and (not skip or len(bad) == count):
            raise self._error(bad, wheres)
        notes = [Note(self.name, wheres[row], f"{LEFT_OUT}: {error.kind}") for row, error in bad.items()]
        return [row for row in range(count) if row not in bad] if bad else range(count), notes

    def _error(self, bad: dict[int, RequestError], wheres: Sequence[str]) -> RequestError:
        message = str(next(iter(bad.values())))
        if len(bad) > 1:
            kinds = dict.fromkeys(error.kind for error in bad.values())
            counts = ", ".join(_counted([row for row in bad if bad[row].kind == kind], kind, wheres) for kind in kinds)
            message += f" ({len(bad):,} of {len(wheres):,} rows are bad: {counts})"
        if len(bad) < len(wheres):
            message += f"; data.skip_bad: true leaves {'them' if len(bad) > 1 else 'it'} out"
        faulty = all(isinstance(error, FaultyData) for error in bad.values())
        return FaultyData(message) if faulty else RequestError(message)


def _counted(rows: Sequence[int], kind: str, wheres: Sequence[str]) -> str:
    shown = ", ".join(wheres[row].rpartition(":")[2] for row in rows[:SHOWN])
    more = ", …" if len(rows) > SHOWN else ""
    return f"{kind} ({len(rows):,}: {'line' if len(rows) == 1 else 'lines'} {shown}{more})"
