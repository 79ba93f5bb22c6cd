"""One example, and a set of them: what every reader produces and everything above consumes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np


@dataclass(frozen=True, slots=True)
class Example:
    """One (source, target) pair as the user's files give it.

    A text example has `source`; a feature example has `frames` (how many) and its set gives the matrix.
    """

    id: str
    target: str
    source: str = ""  # text; for features the optional prompt
    frames: int = 0  # 0: a text example
    where: str = ""  # "file:line", for errors and findings


@dataclass(slots=True)
class Dataset(Sequence[Example]):
    """Examples in file order; for feature sets also how to read a matrix.

    `features(i)` gives example i's (frames, dims) float32 matrix, checked, and may read it from disk each time.
    """

    examples: list[Example]
    name: str = ""  # for messages: the file or set it came from
    dims: int = 0  # width of a frame; 0: a text set
    read: Callable[[int], np.ndarray] | None = None
    weights: list[float] = field(default_factory=list)  # mixture: one weight an example; empty: all alike

    def features(self, index: int) -> np.ndarray:
        """The (frames, dims) float32 matrix of one example."""
        if self.read is None:
            raise TypeError(f"{self.name} is a set of text pairs: it has no features")
        return self.read(index)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Dataset: ...
    def __getitem__(self, index: int | slice) -> Example | Dataset:
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self.examples))))
        return self.examples[index]

    def select(self, indices: Sequence[int]) -> Dataset:
        """The same set with these examples only, in this order."""
        chosen = list(indices)
        read = self.read
        return Dataset(
            [self.examples[i] for i in chosen],
            self.name,
            self.dims,
            None if read is None else (lambda k: read(chosen[k])),
            [self.weights[i] for i in chosen] if self.weights else [],
        )

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)
