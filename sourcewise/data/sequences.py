"""Sequences whose items are made on access, for sets that do not fit into memory as a list."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Any, TypeVar, overload

import numpy as np

Item = TypeVar("Item")
BLOCK = 50_000  # items that are made at a time


class Lazy(Sequence[Item]):
    """A sequence whose items are computed on access."""

    def __init__(self, make: Callable[[int], Item], size: int) -> None:
        self._make, self._size = make, size

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self._make(i) for i in range(*index.indices(self._size))]
        return self._make(range(self._size)[index])

    def __iter__(self) -> Iterator[Item]:
        return map(self._make, range(self._size))

    def __len__(self) -> int:
        return self._size


class Same(Lazy[Item]):
    """One item, so many times."""

    def __init__(self, item: Item, size: int) -> None:
        super().__init__(lambda _: item, size)
        self.item = item

    def __iter__(self) -> Iterator[Item]:
        return repeat(self.item, self._size)


class Coded(Lazy[Item]):
    """Few different items: `codes` (size,) are indices into `values`."""

    def __init__(self, codes: np.ndarray, values: Sequence[Item]) -> None:
        super().__init__(lambda i: values[int(codes[i])], len(codes))
        self.codes, self.values = codes, values

    @classmethod
    def of(cls, items: Sequence[Item], key: Callable[[Item], Any] = id) -> Coded[Item]:
        """The same items; those with an equal `key` are one."""
        known: dict[Any, int] = {}
        values: list[Item] = []
        codes = np.empty(len(items), dtype=np.int32)
        for place, item in enumerate(items):
            code = known.setdefault(key(item), len(values))
            if code == len(values):
                values.append(item)
            codes[place] = code
        return cls(codes, values)


class Changed(Sequence[Item]):
    """The items of another sequence, each changed by a function."""

    def __init__(self, items: Sequence[Any], change: Callable[[Any], Item]) -> None:
        self._items, self._change = items, change

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        found = self._items[index]
        return list(map(self._change, found)) if isinstance(index, slice) else self._change(found)

    def at(self, places: Sequence[int]) -> list[Item]:
        """See `at`."""
        return list(map(self._change, at(self._items, places)))

    def __iter__(self) -> Iterator[Item]:
        return map(self._change, self._items)

    def __len__(self) -> int:
        return len(self._items)


class Picked(Sequence[Item]):
    """Some items of another sequence: those at `places` (size,), in rising order, of which few are left out."""

    def __init__(self, items: Sequence[Item], places: np.ndarray) -> None:
        self._items, self._places = items, places

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if not isinstance(index, slice):
            return self._items[int(self._places[index])]
        places = self._places[index]
        if not len(places):
            return []
        first, last = int(places.min()), int(places.max())
        block = self._items[first : last + 1]
        return [block[place - first] for place in places.tolist()]

    def at(self, places: Sequence[int]) -> list[Item]:
        """See `at`."""
        return at(self._items, self._places[np.asarray(places, dtype=np.int64)].tolist())

    def __iter__(self) -> Iterator[Item]:
        for _, block in blocks(self):
            yield from block

    def __len__(self) -> int:
        return len(self._places)


def at(items: Sequence[Item], places: Sequence[int]) -> list[Item]:
    """The items at these places, all at once: where each is made on access, one at a time costs many times as much."""
    found: list[Item] = items.at(places) if hasattr(items, "at") else [items[place] for place in places]
    return found


def blocks(items: Sequence[Item], size: int = 0) -> Iterator[tuple[int, Sequence[Item]]]:
    """Yields (place of the first item, items) for `size` items at a time (by default `BLOCK`)."""
    size = size or BLOCK
    for start in range(0, len(items), size):
        yield start, items[start : start + size]


def evenly(size: int, most: int) -> np.ndarray:
    """At most `most` places of so many, evenly spread, in rising order: int64."""
    return np.linspace(0, size - 1, min(size, most)).astype(np.int64)
