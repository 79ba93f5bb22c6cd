"""Do sources and targets belong together? Each set, and each quarter of it, against the same rows paired otherwise.

That nothing is seen is no proof: a label can hang on a source in ways that no statistic sees. So a set is said to be
out of step only where a relation would have been seen: where equal sources have unequal targets, or where targets are
many, and long enough that something of them would show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sourcewise.data.examples import Example
from sourcewise.diagnosis.measures.dependence import Kernel, goes_with, own_is_likest
from sourcewise.diagnosis.measures.sides import Side, Texts, identical, in_common

FEWEST = 200  # examples from which a set, or a quarter of it, is judged
WHOLE, QUARTER = 800, 400  # examples at most
CHANCE = 4  # deviations: below, a pairing is no better than shuffled
CLEAR = 10  # what a quarter in step has
STRONGEST = 4  # comparisons in which quarters are looked at: those that show most of the whole
VARIED = 0.25  # of the examples: with fewer different texts a side is a list of labels
LONG = 8  # letters of a target on average, from which chance cannot hide that they are told
SUMS = 30  # deviations that a relation of pairs of letters would have, for short numbers to be judged

View = tuple[str, str] | str  # of the source and of the target, or of what both have in common
Sides = Callable[[np.ndarray, np.ndarray], tuple[Side, Texts]]  # sources and targets at positions


@dataclass(frozen=True, slots=True)
class Pairing:
    """What is known of a set: whether it is out of step and the evidence, or what cannot be told."""

    state: Literal["in step", "out of step", "perhaps", "not told"]  # perhaps: but for arithmetic it would be
    words: str = ""


@dataclass(frozen=True, slots=True)
class Relation:
    """How far the true pairing stands out from shuffled ones, in each comparison; the strongest first."""

    found: tuple[tuple[View, float], ...]
    examples: int

    @property
    def strongest(self) -> float:
        """Deviations, in the comparison that shows most."""
        return self.found[0][1] if self.found else 0.0

    def __str__(self) -> str:
        if not self.found:
            return f"all {self.examples} examples are alike on one side"
        view = self.found[0][0]
        of = view if isinstance(view, str) else " with ".join(view)
        stands = f"stands {self.strongest:.1f} deviations above shuffled ones"
        return f"the pairing of {self.examples} examples {stands} ({of})"


def pairing(examples: Sequence[Example], sides: Sides) -> Pairing:
    """Whether a set is paired as it should be, and each quarter of it; `sides` gives the rows at some positions."""
    places = np.arange(len(examples))
    if len(places) < FEWEST:
        return Pairing("not told", f"{len(places)} examples, at least {FEWEST} are needed")
    some = _spread(places, WHOLE)
    source, target = sides(some, some)
    whole = relation(source, target)
    quarters = [q for q in np.array_split(places, 4) if len(q) >= FEWEST] or [places]
    if whole.strongest >= CHANCE:
        return _by_quarters(examples, sides, quarters, [view for view, _ in whole.found[:STRONGEST]])
    if any(_chained(examples, places[1:-1], step) for step in (1, -1)):
        return Pairing("not told", "each source is the target of the line beside it, as where turns follow each other")
    for quarter in quarters:
        if moved := _moved(examples, sides, quarter, whole):
            return Pairing("out of step", moved)
    told = would_show(source, target)
    if told == "no":
        several = len(set(target.texts))
        kinds = f"{several:,} different targets" if several > 1 else "one target"
        words = f"nothing seen in the sources of {whole.examples} examples goes with their {kinds}"
        return Pairing("not told", f"{words}, but labels and short answers may hang on them in ways that do not show")
    return Pairing("out of step" if told == "surely" else "perhaps", f"{whole}; shuffled pairs have less than {CHANCE}")


def _by_quarters(
    examples: Sequence[Example], sides: Sides, quarters: Sequence[np.ndarray], views: Sequence[View]
) -> Pairing:
    """Whether some quarter is out of step: no better than shuffled, or better with the line before or after it."""
    both = [sides(some, some) for some in (_spread(quarter, QUARTER) for quarter in quarters)]
    each = [relation(*rows, views) for rows in both]
    best = max(found.strongest for found in each)
    for quarter, rows, found in zip(quarters, both, each, strict=True):
        if moved := _moved(examples, sides, quarter, found, views):
            return Pairing("out of step", moved)
        if found.strongest < CHANCE and best >= CLEAR and would_show(*rows) != "no":
            words = f"{_lines(examples, quarter)}: {found}; the quarter that is best in step has {best:.0f}"
            return Pairing("out of step", words)
    return Pairing("in step")


def _moved(
    examples: Sequence[Example], sides: Sides, quarter: np.ndarray, found: Relation, views: Sequence[View] | None = None
) -> str | None:
    """The evidence that sources go better with the target of the next or previous line, where they do."""
    inner = _spread(quarter[1:-1], QUARTER)
    for step in (1, -1):
        moved = relation(*sides(inner, inner + step), views)
        if moved.strongest < max(CLEAR, 2 * found.strongest) or _chained(examples, inner, step):
            continue
        line = "next" if step == 1 else "previous"
        return f"{_lines(examples, quarter)}: {found}; with the {line} line's target it is {moved.strongest:.0f}"
    return None


def _chained(examples: Sequence[Example], places: np.ndarray, step: int) -> bool:
    """Whether a line's source is the target of the line beside it, as the turns of a conversation follow each other."""
    same = [examples[int(i)].source.strip() == examples[int(i) + step].target.strip() for i in places]
    return sum(same) >= len(same) / 2


def relation(source: Side, target: Texts, views: Sequence[View] | None = None) -> Relation:
    """How far these rows go together in these comparisons, or in all."""
    found = sorted(_compared(source, target, views), key=lambda item: -item[1])
    return Relation(tuple(found), len(target.texts))


def _compared(source: Side, target: Texts, views: Sequence[View] | None) -> Iterator[tuple[View, float]]:
    for view in views if views is not None else [(a, b) for b in target.views for a in source.views]:
        if not isinstance(view, str):
            yield view, goes_with(source.kernel(view[0]), target.kernel(view[1]))
            if views is None and view[0] == source.views[-1]:
                target.forget()
    if isinstance(source, Texts):
        for name, likeness in in_common(source, target).items():
            if views is None or name in views:
                yield name, own_is_likest(likeness())


def would_show(source: Side, target: Texts) -> Literal["surely", "perhaps", "no"]:
    """Whether rows that belong together would go together in some comparison; perhaps, where sums could hide it."""
    if not isinstance(source, Texts):
        return "surely" if _varied(target.texts) else "no"
    if _repeated(source, target) >= CLEAR:
        return "surely"
    if not _varied(source.texts) or not _varied(target.texts):
        return "no"
    numbers = np.mean([not any(letter.isalpha() for letter in row) for row in target.letters]) > 0.5
    long = np.mean([len(row) for row in target.letters]) >= LONG
    if not long and _told_by_pairs(source, target) < (SUMS if numbers else CLEAR):
        return "no"
    return "perhaps" if numbers and not long else "surely"


def _repeated(source: Texts, target: Texts) -> float:
    """The deviation that equal targets for equal sources would have, as far as there are as many of both."""
    kernels = []
    for side in (source, target):
        rows = ["".join(row) for row in side.letters]
        count = Counter(rows)
        kernels.append(Kernel(identical([(row,) for row in sorted(rows, key=lambda row: (-count[row], row))])))
    return goes_with(*kernels)


def _told_by_pairs(source: Texts, target: Texts) -> float:
    """The deviation that targets would have of which each letter hangs on two letters of their source, as in sums."""
    own, said = (_choices(side.letters) for side in (source, target))
    pairs = (own.sum() ** 2 - np.square(own).sum()) / 2
    return float(len(target.letters) * np.sqrt(said.sum() / max(2 * pairs, 1)))


def _choices(rows: Sequence[Sequence[str]]) -> np.ndarray:
    """How many different letters there are at each place, less one; a place that few rows have counts less."""
    longest = max(map(len, rows), default=0)
    held = [[row[place] for row in rows if len(row) > place] for place in range(longest)]
    return np.array([(len(set(letters)) - 1) * len(letters) / len(rows) for letters in held] or [0.0])


def _varied(texts: Sequence[str]) -> bool:
    return len(set(texts)) >= max(FEWEST / 2, VARIED * len(texts))


def _lines(examples: Sequence[Example], places: np.ndarray) -> str:
    return f"from {examples[int(places[0])].where} to {examples[int(places[-1])].where}"


def _spread(places: np.ndarray, size: int) -> np.ndarray:
    return places[np.linspace(0, len(places) - 1, min(len(places), size)).astype(int)]
