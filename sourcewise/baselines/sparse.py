"""Rows of which few columns are not 0: counts of n-grams and their weights, kept without a library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, slots=True)
class SparseRows:
    """(rows, width) numbers; row i has `values[begins[i]:begins[i + 1]]` in these `columns`, each column once.

    values: (entries,) float32 · columns: (entries,) int64, rising within a row · begins: (rows + 1,) int64
    """

    values: np.ndarray
    columns: np.ndarray
    begins: np.ndarray
    width: int

    def __len__(self) -> int:
        return len(self.begins) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self), self.width

    @property
    def sizes(self) -> np.ndarray:
        """(rows,) entries of each row."""
        return np.diff(self.begins)

    @property
    def owners(self) -> np.ndarray:
        """(entries,) the row of each entry."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def __getitem__(self, chosen: np.ndarray) -> SparseRows:
        """Some rows, by their numbers."""
        sizes = self.sizes[chosen]
        begins = _begins(sizes)
        places = np.arange(begins[-1]) + np.repeat(self.begins[:-1][chosen] - begins[:-1], sizes)
        return SparseRows(self.values[places], self.columns[places], begins, self.width)

    def __add__(self, other: SparseRows) -> SparseRows:
        """Sums, row by row."""
        owners = np.concatenate([self.owners, other.owners])
        columns = np.concatenate([self.columns, other.columns])
        return summed(owners, columns, np.concatenate([self.values, other.values]), self.shape)

    def weighed(self, values: np.ndarray) -> SparseRows:
        """The same entries with other values."""
        return replace(self, values=values.astype(np.float32))

    def only(self, kept: np.ndarray) -> SparseRows:
        """The entries that are kept, (entries,) of truth values."""
        begins = _begins(np.bincount(self.owners[kept], minlength=len(self)))
        return SparseRows(self.values[kept], self.columns[kept], begins, self.width)

    def by_column(self) -> SparseRows:
        """The same numbers with rows and columns exchanged."""
        order = np.argsort(self.columns, kind="stable")
        begins = _begins(np.bincount(self.columns, minlength=self.width))
        return SparseRows(self.values[order], self.owners[order], begins, len(self))

    def lengths(self) -> np.ndarray:
        """(rows,) Euclidean lengths."""
        squares = np.bincount(self.owners, weights=self.values.astype(np.float64) ** 2, minlength=len(self))
        return np.asarray(np.sqrt(squares))

    def products(self, columns: SparseRows, first: int, last: int) -> np.ndarray:
        """(last − first, others) products of these rows with other rows, which `by_column` has turned."""
        found = np.zeros((last - first, columns.width), dtype=np.float32)
        for row, line in zip(range(first, last), found, strict=True):
            for place in range(self.begins[row], self.begins[row + 1]):
                column = self.columns[place]
                inside = slice(columns.begins[column], columns.begins[column + 1])
                line[columns.columns[inside]] += self.values[place] * columns.values[inside]
        return found


def summed(owners: np.ndarray, columns: np.ndarray, values: np.ndarray, shape: tuple[int, int]) -> SparseRows:
    """Rows of entries in any order; those of one row and column are added."""
    places = owners.astype(np.int64) * shape[1] + columns
    order = np.argsort(places, kind="stable")
    places = places[order]
    firsts = np.flatnonzero(np.diff(places, prepend=-1))
    sums = np.add.reduceat(values[order], firsts) if len(firsts) else np.zeros(0)
    rows, left = np.divmod(places[firsts], shape[1])
    return SparseRows(sums.astype(np.float32), left, _begins(np.bincount(rows, minlength=shape[0])), shape[1])


def stacked(parts: Sequence[SparseRows], width: int) -> SparseRows:
    """The rows of all parts, one part after another."""
    if not parts:
        return SparseRows(np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros(1, np.int64), width)
    sizes = np.concatenate([part.sizes for part in parts])
    values, columns = (np.concatenate([getattr(part, name) for part in parts]) for name in ("values", "columns"))
    return SparseRows(values, columns, _begins(sizes), width)


def _begins(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
