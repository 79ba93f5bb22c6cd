"""Whether outputs belong to the references of other rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sourcewise.metrics.texts import words

SHIFTS = (-3, -2, -1, 1, 2, 3)  # lines that references may be off by
ERRORS = 4  # standard errors, from which on another reference fits better beyond chance
VARIED = 0.8  # of the references, that stand there once
ONCE = 0.9  # of the outputs of other rows, that are those of one row each
BLOCK = 40  # rows that are looked at together, since a part of a set may be off


@dataclass(frozen=True, slots=True)
class Moved:
    """Rows whose outputs fit another row's reference better than their own."""

    rows: int
    first: int
    shift: int
    own: float  # likeness, 0 to 1, of these rows' outputs and their own references
    theirs: float  # and those of the rows that fit


def likeness(one: str, other: str) -> float:
    """F1 of words, or of letter pairs where a text is one word."""
    sides = [_units(text, min(len(words(one)), len(words(other)))) for text in (one, other)]
    shared, sizes = (sides[0] & sides[1]).total(), sides[0].total() + sides[1].total()
    return 2 * shared / sizes if sizes else 0.0


def moved_rows(outputs: Sequence[str], references: Sequence[str], by: float) -> Moved | None:
    """The shift that most blocks of rows fit better by than their own references; None where there is none."""
    size = len(outputs)
    own = np.array([likeness(o, r) for o, r in zip(outputs, references, strict=True)])
    best: Moved | None = None
    for shift in SHIFTS:
        there = np.array([0 <= i + shift < size for i in range(size)])
        other = np.array([likeness(outputs[i], references[i + shift]) if there[i] else own[i] for i in range(size)])
        gained = other - own
        blocks = [np.arange(start, min(size, start + BLOCK)) for start in range(0, size, BLOCK)]
        off = [block for block in blocks if gained[block].mean() >= by and _sure(gained[block])]
        if not off:
            continue
        rows = np.concatenate(off)
        found = Moved(len(rows), int(rows[0]), shift, float(own[rows].mean()), float(other[rows].mean()))
        if best is None or found.rows * (found.theirs - found.own) > best.rows * (best.theirs - best.own):
            best = found
    return best


@dataclass(frozen=True, slots=True)
class Exchanged:
    """Outputs that are another row's reference, each of another row: how many, of how many, with the first of them and
    the row whose reference it is; and how many are right.
    """

    rows: int
    of: int
    first: tuple[int, int]
    right: int


def exchanged_rows(outputs: Sequence[str], references: Sequence[str]) -> Exchanged | None:
    """Outputs that lie in another order than their references; None where references are too alike to tell."""
    counts = Counter(references)
    places = {text: i for i, text in enumerate(references) if counts[text] == 1}
    if len(places) < VARIED * len(references):
        return None
    right = sum(o == r for o, r in zip(outputs, references, strict=True))
    moved = [(i, places[o]) for i, o in enumerate(outputs) if o != references[i] and o in places]
    rows = {j for _, j in moved}
    if not moved or len(rows) < ONCE * len(moved):
        return None  # a few texts are said again and again
    return Exchanged(len(moved), len(outputs), moved[0], right)


def _sure(gained: np.ndarray) -> bool:
    """Whether a mean is above 0 beyond chance."""
    return len(gained) >= 8 and float(gained.mean()) > ERRORS * float(gained.std()) / len(gained) ** 0.5


def _units(text: str, fewest: int) -> Counter[str]:
    found = words(text)
    if fewest > 1:
        return Counter(found)
    joined = f" {' '.join(found)} "
    return Counter(joined[i : i + 2] for i in range(len(joined) - 1))
