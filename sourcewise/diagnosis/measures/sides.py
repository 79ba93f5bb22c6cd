"""The sides of pairs, each looked at in several views: tokens, letters, where they stand, whole texts, lengths.

Bags of tokens tell translations; letters by their place tell what has all letters in every text, such as strings that
are to be reversed, sorted or enciphered; pairs of letters tell sums; repeated letters tell what a key hides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np

from sourcewise.diagnosis.measures.dependence import Kernel
from sourcewise.model.builder import CONSTANT

TOKENS = 400  # columns of a bag: the commonest tokens
LETTERS = 64  # columns of counts: the commonest letters
PLACES = 24  # letters, from either end, and words that are compared by where they stand
REPEATS = 10  # letters of which each two are asked whether they are the same
SHARED = 1024  # columns of what both sides may have in common: words, and pieces of three letters
LONGEST = 2000  # characters of a text that are looked at
ABSENT = 2**16 - 1  # the code of a place that a row does not reach
QUIET = 0.05  # of the largest singular value: directions below are noise, not contents
Rows = Sequence[Sequence[Hashable]]


class Side:
    """One side of some examples: its views, each a kernel, made when it is first asked for."""

    def __init__(self, views: dict[str, Callable[[], np.ndarray]]) -> None:
        self._views = views
        self._made: dict[str, Kernel] = {}

    @property
    def views(self) -> tuple[str, ...]:
        """The names of the views, in words."""
        return tuple(self._views)

    def kernel(self, view: str) -> Kernel:
        """How alike the examples are in a view."""
        if view not in self._made:
            self._made[view] = Kernel(self._views[view]())
        return self._made[view]

    def forget(self) -> None:
        """Let the kernels go: a thousand examples take 4 MB each."""
        self._made.clear()


class Texts(Side):
    """A side of texts, beside their token ids."""

    def __init__(self, texts: Sequence[str], ids: Sequence[Sequence[int] | np.ndarray]) -> None:
        self.texts = [text[:LONGEST] for text in texts]
        self.letters = [[letter for letter in text if not letter.isspace()] for text in self.texts]
        words = [text.split() for text in self.texts]
        lengths = ([len(row) for row in rows] for rows in (self.letters, ids))
        super().__init__(
            {
                "tokens": lambda: _inner(_bag([np.unique(np.asarray(row)).tolist() for row in ids])),
                "counts of letters": lambda: _inner(_counts(self.letters)),
                "letters from the left": lambda: self._placed,
                "letters from the right": lambda: same_at_places([row[::-1] for row in self.letters]),
                "words from the left": lambda: same_at_places(words),
                "pairs of letters": lambda: np.square(Kernel(self._placed).table),
                "triples of letters": lambda: Kernel(self._placed).table ** 3,
                "letters that repeat": lambda: _inner(_repeats(self.letters)),
                "whole texts": lambda: identical(self.letters),
                "letters whatever their order": lambda: identical([sorted(row) for row in self.letters]),
                "numbers of letters": lambda: _ranks(next(lengths)),
                "numbers of tokens": lambda: _ranks([len(row) for row in ids]),
            }
        )

    @cached_property
    def _placed(self) -> np.ndarray:
        return same_at_places(self.letters)


class Features(Side):
    """A side of matrices, of which `in_thirds` is known, (n, 4, dims), and how many frames each has."""

    def __init__(self, summed: np.ndarray, frames: Sequence[int]) -> None:
        super().__init__(
            {
                "mean frames": lambda: _inner(_directions(summed[:, 0])),
                "mean frames of each third": lambda: _inner(_directions(summed[:, 1:].reshape(len(summed), -1))),
                "numbers of frames": lambda: _ranks(frames),
            }
        )


def in_thirds(matrix: np.ndarray) -> np.ndarray:
    """The mean of a matrix (frames, dims), and those of its thirds: (4, dims)."""
    edges = [len(matrix) * k // 3 for k in range(4)]
    parts = [matrix[a : max(b, a + 1)] for a, b in pairwise(edges)]
    return np.stack([part.mean(0, dtype=np.float64) for part in (matrix, *parts)])


def in_common(sources: Texts, targets: Texts) -> dict[str, Callable[[], np.ndarray]]:
    """What a source may share with its own target, in words: (n, n) likenesses of sources with targets."""
    sides = sources.letters, targets.letters
    return {
        "words and letters in common": lambda: _shared(sources.texts, targets.texts),
        "the same letter at the same place": lambda: same_at_places(*sides),
        "the same letter at the same place from the right": lambda: same_at_places(
            *([row[::-1] for row in side] for side in sides)
        ),
    }


def same_at_places(rows: Rows, others: Rows | None = None) -> np.ndarray:
    """At how many of the first places two rows hold the same: (rows, others) float32."""
    codes: dict[Hashable, int] = {}
    left = _codes(rows, codes, ABSENT)
    right = left if others is None else _codes(others, codes, ABSENT)
    same = np.zeros((len(left), len(right)), dtype=np.uint8)
    for place in range(PLACES):
        mine = left[:, place, None]
        same += (mine == right[None, :, place]) & (mine != ABSENT)
    return same.astype(np.float32)


def _codes(rows: Rows, codes: dict[Hashable, int], absent: int) -> np.ndarray:
    out = np.full((len(rows), PLACES), absent, dtype=np.uint16)
    for i, row in enumerate(rows):
        found = [codes.setdefault(unit, len(codes)) for unit in row[:PLACES]]
        out[i, : len(found)] = found
    return out


def identical(rows: Rows) -> np.ndarray:
    """Whether two rows are the same: (n, n) float32."""
    seen: dict[Hashable, int] = {}
    numbers = np.array([seen.setdefault(tuple(row), len(seen)) for row in rows])
    return (numbers[:, None] == numbers[None, :]).astype(np.float32)


def _inner(table: np.ndarray) -> np.ndarray:
    return table @ table.T


def _table(rows: Rows, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each row has each of the commonest units, and in how many rows each of these is."""
    held = Counter(unit for row in rows for unit in dict.fromkeys(row))
    chosen = {unit: i for i, (unit, count) in enumerate(held.most_common(columns)) if count >= 2}
    table = np.zeros((len(rows), len(chosen)), dtype=np.float32)
    for i, row in enumerate(rows):
        for unit in row:
            if unit in chosen:
                table[i, chosen[unit]] += 1
    return table, np.array([held[unit] for unit in chosen], dtype=np.float32)


def _bag(rows: Rows) -> np.ndarray:
    """Which tokens a text has, rare ones weighing more, rows of length 1."""
    table, held = _table(rows, TOKENS)
    table *= np.log(len(rows) / np.maximum(held, 1))
    return table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-6)


def _counts(rows: Rows) -> np.ndarray:
    """How often a text has each letter, in deviations of it; a rare letter counts no more than a usual one."""
    table, _ = _table(rows, LETTERS)
    table -= table.mean(0)
    return table / np.maximum(table.std(0), 0.1)


def _repeats(rows: Rows) -> np.ndarray:
    """Which of the first letters are the same as which before them."""
    pairs = [[(i, j) for j in range(min(REPEATS, len(row))) for i in range(j) if row[i] == row[j]] for row in rows]
    return _table(pairs, REPEATS * REPEATS)[0]


def _ranks(values: Sequence[int]) -> np.ndarray:
    """Likeness by size: the product of ranks, equal values sharing the middle of theirs."""
    order = np.sort(values)
    ranks = (np.searchsorted(order, values, "left") + np.searchsorted(order, values, "right")).astype(np.float64)
    if order[0] == order[-1]:
        return np.zeros((len(ranks), len(ranks)), dtype=np.float32)
    ranks = ((ranks - ranks.mean()) / ranks.std()).astype(np.float32)
    return np.outer(ranks, ranks)


def _shared(sources: Sequence[str], targets: Sequence[str]) -> np.ndarray:
    """Likeness of sources with targets by their words and pieces of three letters, rare ones weighing more."""
    columns: dict[str, int] = {}
    tables = []
    for texts in (sources, targets):
        table = np.zeros((len(texts), SHARED), dtype=np.float32)
        for i, text in enumerate(texts):
            flat = f" {' '.join(text.casefold().split())} "
            pieces = [flat[k : k + 3] for k in range(len(flat) - 2)] + flat.split()
            table[i, [columns.setdefault(piece, len(columns)) % SHARED for piece in pieces]] = 1
        tables.append(table)
    weights = np.log(2 * len(sources) / np.maximum(sum(table.sum(0) for table in tables), 1))
    both = [table * np.maximum(weights, 0) for table in tables]
    left, right = (table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-6) for table in both)
    return left @ right.T


def _directions(means: np.ndarray) -> np.ndarray:
    """Mean frames (n, dims) → the directions in which they differ, (n, directions), each counting as much.

    Without this a loudness that all dimensions share hides the contents.
    """
    centred = means - means.mean(0)
    deviation = centred.std(0)
    vectors, sizes, _ = np.linalg.svd(centred / np.where(deviation > CONSTANT, deviation, 1), full_matrices=False)
    return np.asarray(vectors[:, sizes > QUIET * max(float(sizes[0]), CONSTANT)], dtype=np.float32)
