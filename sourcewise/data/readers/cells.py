"""Cells of a column as texts: numbers as written, missing values as empty texts, with notes on doubtful cells.

Missing are null, NaN and the like. Whole numbers stay whole if pandas made floats of them because of missing values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

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

    texts: list[str]
    wrong: dict[int, str] = field(default_factory=dict)
    remarks: list[tuple[int, str]] = field(default_factory=list)  # (row, words)


def as_texts(values: Sequence[Any], name: str) -> Cells:
    """The texts of the column `name`; a wrong cell becomes an empty text."""
    kinds = set(map(type, values))
    if kinds <= {str}:
        return _remarked(Cells(list(values)), name)
    found = Cells([""] * len(values))
    numbers = [i for i, value in enumerate(values) if _is_number(value) and math.isfinite(value)]
    whole = _all_whole([values[i] for i in numbers])
    for i, value in enumerate(values):
        if type(value) is str:
            found.texts[i] = value
        elif _is_number(value) and math.isfinite(value):
            found.texts[i] = str(int(value)) if whole else _as_written(value)
        elif not _is_missing(value):
            found.wrong[i] = _wrong(value, name)
    _tell_of_numbers(values, numbers, whole, name, found)
    return _remarked(found, name)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


def _is_missing(value: Any) -> bool:
    """Whether a value is null, NaN (of Python, numpy, Decimal) or NaT; the latter are not equal to themselves."""
    return value is None or (_is_number(value) and math.isnan(value)) or type(value).__name__ in ("NaTType", "NAType")


def _all_whole(numbers: Sequence[Any]) -> bool:
    return all(isinstance(n, int) or (isinstance(n, float) and n.is_integer() and abs(n) <= _EXACT) for n in numbers)


def _as_written(value: Any) -> str:
    return value.text if isinstance(value, Written) else str(value)


def _wrong(value: Any, name: str) -> str:
    if value is ABSENT:
        return f"no {name!r} in this line; every line needs it"
    if _is_number(value):
        return f"{name!r} is infinite; it should be text"
    return f"{name!r} is a {type(value).__name__}; it should be text"


def _tell_of_numbers(values: Sequence[Any], numbers: list[int], whole: bool, name: str, found: Cells) -> None:
    floats = [i for i in numbers if isinstance(values[i], float)]
    if whole and floats:
        what = f"{len(floats):,} whole numbers of {name!r} are floats: written without .0"
        found.remarks.append((floats[0], what))
    if numbers and any(type(value) is str for value in values):
        texts = sum(type(value) is str for value in values)
        what = f"{name!r} has {texts:,} texts and {len(numbers):,} numbers; the numbers are read as text"
        found.remarks.append((numbers[0], what))


def _remarked(found: Cells, name: str) -> Cells:
    """Remark on texts that look like a program's spelling of a missing value."""
    texts = found.texts
    if not _MISSING.isdisjoint(texts):
        rows = [i for i, text in enumerate(texts) if text in _MISSING]
        words = ", ".join(dict.fromkeys(texts[i] for i in rows))
        found.remarks.append((rows[0], f"{len(rows):,} cells of {name!r} are the word {words}: taken as text"))
    first = next((i for i, text in enumerate(texts) if text), None)
    begins = first is not None and _POINT_ZERO.fullmatch(texts[first])
    if begins and all(not text or _POINT_ZERO.fullmatch(text) for text in texts):
        remark = f"all of {name!r} are numbers that end in .0, as pandas writes whole ones with a gap: kept so"
        found.remarks.append((first or 0, remark))
    return found
