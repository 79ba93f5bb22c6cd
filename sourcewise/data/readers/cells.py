"""Cells of a column as texts: numbers as written, missing values as empty texts, with notes on doubtful cells.

Missing are null, NaN and the like. Whole numbers stay whole if pandas made floats of them because of missing values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sourcewise.data.readers.doubtful import doubts
from sourcewise.data.sequences import blocks
from sourcewise.data.stored.columns import Column, Gathered, InMemory

ABSENT = object()  # a JSON line without this key
_MISSING = frozenset(  # missing values as pandas, R, databases and spreadsheets write them
    (
        *("nan", "NaN", "inf", "-inf", "Infinity", "-Infinity", "None", "null", "NULL", "(null)", "undefined", "NaT"),
        *("<NA>", "NA", "N/A", "n/a", "\\N", "#N/A", "#NV", "#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "#NULL!", "#NUM!"),
    )
)
_POINT_ZERO = re.compile(r"-?\d+\.0")
_EXACT = 2.0**53  # floats represent all whole numbers up to here


class Written(float):
    """A float with its original spelling."""

    text: str

    def __new__(cls, text: str) -> Written:
        """The number of a text."""
        number = super().__new__(cls, text)
        number.text = text
        return number


@dataclass(slots=True)
class Cells:
    """A column as texts; `wrong` maps rows without a text to the reason, `remarks` are on converted cells."""

    texts: Sequence[str]
    wrong: dict[int, str] = field(default_factory=dict)
    remarks: list[tuple[int, str]] = field(default_factory=list)  # (row, words)


@dataclass(slots=True)
class _Numbers:
    """The finite numbers of a column, with the row of the first one and of the first float."""

    count: int = 0
    first: int = 0
    floats: int = 0
    first_float: int = 0
    whole: bool = True
    texts: int = 0

    def see(self, row: int, value: Any) -> None:
        """Count a cell."""
        if type(value) is str:
            self.texts += 1
        elif _is_number(value) and math.isfinite(value):
            self.first = self.first if self.count else row
            self.count, self.whole = self.count + 1, self.whole and _is_whole(value)
            if isinstance(value, float):
                self.first_float = self.first_float if self.floats else row
                self.floats += 1


def as_texts(values: Sequence[Any], name: str, gathered: Gathered | None = None) -> Cells:
    """The texts of the column `name`, as a column that `gathered` makes; a wrong cell becomes an empty text."""
    if values.is_text if isinstance(values, Column) else set(map(type, values)) <= {str}:
        return _remarked(Cells(values), name)
    numbers, wrong = _Numbers(), dict[int, str]()
    for row, value in enumerate(values):
        numbers.see(row, value)

    def texts() -> Iterator[list[str]]:
        for start, block in blocks(values):
            found = [_text_of(value, numbers.whole) for value in block]
            wrong.update({start + i: _wrong(block[i], name) for i, text in enumerate(found) if text is None})
            yield [text or "" for text in found]

    found = Cells((gathered or InMemory(ABSENT)).column(texts()), wrong)
    _tell_of_numbers(numbers, name, found)
    return _remarked(found, name)


def _text_of(value: Any, whole: bool) -> str | None:
    """The text of a cell; None if it has none."""
    if type(value) is str:
        return value
    if _is_number(value) and math.isfinite(value):
        return str(int(value)) if whole else _as_written(value)
    return "" if _is_missing(value) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


def _is_missing(value: Any) -> bool:
    """Whether a value is null, NaN (of Python, numpy, Decimal) or NaT; the latter are not equal to themselves."""
    return value is None or (_is_number(value) and math.isnan(value)) or type(value).__name__ in ("NaTType", "NAType")


def _is_whole(number: Any) -> bool:
    return isinstance(number, int) or (isinstance(number, float) and number.is_integer() and abs(number) <= _EXACT)


def _as_written(value: Any) -> str:
    return value.text if isinstance(value, Written) else str(value)


def _wrong(value: Any, name: str) -> str:
    if value is ABSENT:
        return f"no {name!r} in this line; every line needs it"
    if _is_number(value):
        return f"{name!r} is infinite; it should be text"
    return f"{name!r} is a {type(value).__name__}; it should be text"


def _tell_of_numbers(numbers: _Numbers, name: str, found: Cells) -> None:
    if numbers.whole and numbers.floats:
        what = f"{numbers.floats:,} whole numbers of {name!r} are floats: written without .0"
        found.remarks.append((numbers.first_float, what))
    if numbers.count and numbers.texts:
        what = f"{name!r} has {numbers.texts:,} texts and {numbers.count:,} numbers; the numbers are read as text"
        found.remarks.append((numbers.first, what))


def _remarked(found: Cells, name: str) -> Cells:
    """Remark on texts that look like a program's spelling of a missing value, or are damaged."""
    texts = found.texts
    found.remarks += doubts(texts, f"cells of {name!r}")
    if not all(_MISSING.isdisjoint(block) for _, block in blocks(texts)):  # in C, since tables are long
        rows = [i for i, text in enumerate(texts) if text in _MISSING]
        words = ", ".join(dict.fromkeys(texts[i] for i in rows))
        found.remarks.append((rows[0], f"{len(rows):,} cells of {name!r} are the word {words}: taken as text"))
    first = next((i for i, text in enumerate(texts) if text), None)
    begins = first is not None and _POINT_ZERO.fullmatch(texts[first])
    if begins and all(not text or _POINT_ZERO.fullmatch(text) for text in texts):
        remark = f"all of {name!r} are numbers that end in .0, as pandas writes whole ones with a gap: kept so"
        found.remarks.append((first or 0, remark))
    return found
