"""Examples and data sets, which all readers produce and all other packages use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

import numpy as np

from sourcewise.config import DatasetConfig
from sourcewise.errors import RequestError

Group = Mapping[str, str]  # kind (recording, signer, speaker, group, …) → which one


@dataclass(frozen=True, slots=True)
class Example:
    """One (source, target) pair as in the user's files.

    A text example has `source`; a feature example has `frames`, their number, and its set returns the matrix.
    """

    id: str
    target: str
    source: str = ""  # text; for features the optional prompt
    frames: int = 0  # 0: a text example
    where: str = ""  # "file:line", for errors and findings
    turns: tuple[str, ...] = ()  # the source of a conversation in pieces: its head, then one piece per turn
    others: tuple[str, ...] = ()  # further references beside the target, which alone is learnt
    languages: tuple[str, str] = ("", "")  # of source and target, as the tokenizer names them; empty: its own
    group: Group = field(default_factory=dict, hash=False)  # what it has in common with others; see groups.py

    @property
    def references(self) -> tuple[str, ...]:
        """What outputs are held to: the target and the others."""
        return (self.target, *self.others)


def unnamed(name: str, column: str) -> RequestError:
    """The error of a set without the column that should name languages."""
    cure = "name one language, such as --target-language CODE"
    return RequestError(f"{name}: {column} should name a language, but there are no columns; {cure}")


@dataclass(frozen=True, slots=True)
class Note:
    """A note on data of the user that is not used as it stands."""

    file: str
    where: str  # line, or id of a conversation and number of a turn; empty: the complete set
    what: str  # one text per kind, so that notes can be counted


@dataclass(frozen=True, slots=True)
class Task:
    """Name, metric and own limits of a set."""

    name: str = ""
    metric: str | None = None
    max_source: int | None = None
    max_target: int | None = None


@dataclass(slots=True)
class Dataset(Sequence[Example]):
    """Examples in the order of the file; feature sets also read matrices.

    `features(i)` returns example i's checked (frames, dims) float32 matrix, and may read it from disk each time.
    """

    examples: Sequence[Example]
    name: str = ""  # the file or set, for messages
    dims: int = 0  # width of a frame; 0: a text set
    read: Callable[[int], np.ndarray] | None = None
    task: Task = field(default_factory=Task)
    notes: list[Note] = field(default_factory=list)
    made: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # stream → how its features were made
    streams: Mapping[str, int] = field(default_factory=dict)  # name → width of each of several named streams, in order
    plain: DatasetConfig | None = None  # of plain text: the options of denoising; targets are documents

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
        """A set of only these examples, in this order."""
        chosen = list(indices)
        read = self.read
        return replace(
            self,
            examples=[self.examples[i] for i in chosen],
            read=None if read is None else (lambda k: read(chosen[k])),
        )

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)
