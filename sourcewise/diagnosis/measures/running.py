"""Are the sources of a set the running ids of its rows, as where the wrong column of a table is read?"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

NUMBER = re.compile(r"\d+")
NAME = re.compile(r"[\w./:#-]*[^\W\d][\w./:#-]*")  # a file's or a row's: train-17, talk3_12.wav
FORMS = 5  # of ids in one set at most: train-17, dev-17, …
MOST = 0.95  # of the sources
LAST, CLEARLY = 10, 6.0  # commonest last letters of targets; deviations of their chi-square with the last digits
DENSE = 0.5  # of the numbers from the lowest to the highest, where they are in no order


class Running(NamedTuple):
    """The first of them, in words, whether they are names (bare numbers can be texts to be read), and the rows in the
    order of their numbers.
    """

    words: str
    names: bool
    order: list[int]


def running_ids(sources: Sequence[str], targets: Sequence[str]) -> Running | None:
    """What shows that these are running ids; None where they are not.

    Each occurs once, and all have one form or few, names or bare numbers, but for a number that runs: it rises from row
    to row, or hardly one is left out. Targets that have the number of their source go with it, and such as end
    by its last digit.
    """
    sources = [text.strip() for text in sources]
    if len(sources) < 2 or len(set(sources)) < MOST * len(sources):
        return None
    forms: dict[str, list[int]] = defaultdict(list)  # form → rows
    for row, text in enumerate(sources):
        forms[NUMBER.sub("0", text)].append(row)
    ids = [form for form in forms if form == "0" or ("0" in form and NAME.fullmatch(form))]
    ids = sorted(ids, key=lambda form: -len(forms[form]))[:FORMS]
    run = sorted(row for form in ids for row in forms[form] if _run([sources[i] for i in forms[form]]))
    told = sum(NUMBER.findall(sources[row])[-1].lstrip("0") in targets[row] for row in run)
    if len(run) < MOST * len(sources) or 2 * told > len(run):
        return None
    if _by_digits([sources[row] for row in run], [targets[row].strip() for row in run]):
        return None
    order = sorted(run, key=lambda row: [int(number) for number in NUMBER.findall(sources[row])])
    return Running(f"{', '.join(sources[row] for row in run[:3])}, …", "0" not in ids, order)


def _by_digits(sources: Sequence[str], targets: Sequence[str]) -> bool:
    """Whether how a target ends hangs on the last digit of its source, as where numbers are to be read."""
    digits = [int(NUMBER.findall(source)[-1][-1]) for source in sources]
    ends = [target[-1:] for target in targets]
    common = {end: place for place, (end, _) in enumerate(Counter(ends).most_common(LAST))}
    table = np.zeros((10, LAST + 1))
    for digit, end in zip(digits, ends, strict=True):
        table[digit, common.get(end, LAST)] += 1
    table = table[table.sum(1) > 0][:, table.sum(0) > 0]
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    if freedom == 0:
        return False
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    return float(((table - expected) ** 2 / expected).sum() - freedom) > CLEARLY * (2 * freedom) ** 0.5


def _run(texts: Sequence[str]) -> bool:
    """Whether the numbers of texts of one form run: all together from row to row, or the one that varies most."""
    rows = np.array([[float(number) for number in NUMBER.findall(text)] for text in texts])
    order = np.zeros(len(rows) - 1)  # from row to row, by the first number that changes
    for column in rows.T:
        order = np.where(order == 0, np.sign(np.diff(column)), order)
    if len(rows) > 1 and np.mean(order > 0) >= MOST:
        return True
    return any(len(set(column)) >= max(2, DENSE * (np.ptp(column) + 1)) for column in rows.T)
