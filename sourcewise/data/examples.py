"""Examples and data sets, which all readers produce and all other packages use."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, overload

import numpy as np

from sourcewise.config import DatasetConfig
from sourcewise.data.sequences import BLOCK, Changed, at
from sourcewise.errors import RequestError

FIRST_OF_STREAM = 250_000  # examples that a tokenizer is trained on
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


@dataclass(frozen=True, slots=True)
class Rows(Sequence[Example]):
    """Text examples that are made on access from columns of equal length."""

    ids: Sequence[str]
    targets: Sequence[str]
    sources: Sequence[str]
    wheres: Sequence[str]
    others: Sequence[tuple[str, ...]]
    groups: Sequence[Group]
    languages: Sequence[tuple[str, str]]

    def changed(self, source: Callable[[str], str], target: Callable[[str], str] | None = None) -> Rows:
        """The same with `source` applied to the sources, and `target` to all references."""
        rows = replace(self, sources=Changed(self.sources, source))
        if target is None:
            return rows
        others = Changed(self.others, lambda texts: tuple(map(target, texts)))
        return replace(rows, targets=Changed(self.targets, target), others=others)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if not isinstance(index, slice):
            place = range(len(self))[index]
            return self._block(slice(place, place + 1))[0]
        return self._block(index)

    def __iter__(self) -> Iterator[Example]:
        for start in range(0, len(self), BLOCK):
            yield from self._block(slice(start, start + BLOCK))

    def __len__(self) -> int:
        return len(self.targets)

    def at(self, places: Sequence[int]) -> list[Example]:
        """See `sequences.at`."""
        return _examples(at(column, places) for column in self._columns())

    def _block(self, some: slice) -> list[Example]:
        return _examples(column[some] for column in self._columns())

    def _columns(self) -> tuple[Sequence[Any], ...]:
        return (self.ids, self.targets, self.sources, self.wheres, self.others, self.languages, self.groups)


def _examples(columns: Iterable[Sequence[Any]]) -> list[Example]:
    return [
        Example(name, target, source, 0, where, others=others, languages=languages, group=group)
        for name, target, source, where, others, languages, group in zip(*columns, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Kept:
    """Where a set is kept on disk, and a digest of its examples, by which what is made of them is kept there too."""

    folder: Path
    key: str

    def changed(self, *how: object) -> Kept:
        """The same for examples that are changed in a way."""
        return replace(self, key=hashlib.blake2b(repr((self.key, *how)).encode(), digest_size=12).hexdigest())


@dataclass(slots=True)
class Dataset(Sequence[Example]):
    """Examples in the order of the file; feature sets also read matrices.

    `features(i)` returns example i's checked (frames, dims) float32 matrix, and may read it from disk each time.
    """

    examples: Sequence[Example]
    name: str = ""  # the file or set, for messages
    dims: int = 0  # width of a frame; 0: a text set
    read: Callable[[int], np.ndarray] | None = None
    from_files: bool = False  # whether `read` reads files each time, since the matrices do not fit into the memory
    task: Task = field(default_factory=Task)
    notes: list[Note] = field(default_factory=list)
    made: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # stream → how its features were made
    streams: Mapping[str, int] = field(default_factory=dict)  # name → width of each of several named streams, in order
    plain: DatasetConfig | None = None  # of plain text: the options of denoising; targets are documents
    image: tuple[int, int, int] | None = None  # height, width and channels of the images that frames are, if known
    kept: Kept | None = None  # of a set that is too large for the memory
    windows: Callable[[int], Dataset] | None = None  # of a stream: its n-th window; the examples are those of the first
    per_pass: int = 1  # of a stream: windows of one pass over it

    def texts(self) -> Iterator[str]:
        """The source and the target of each example; of a stream, of the first `FIRST_OF_STREAM`."""
        if self.windows is not None:
            count, first = min(self.per_pass, -(-FIRST_OF_STREAM // len(self.examples))), replace(self, windows=None)
            windows = (self.windows(number) if number else first for number in range(count))
            return chain.from_iterable(window.texts() for window in windows)
        if isinstance(self.examples, Rows):
            return chain.from_iterable(zip(self.examples.sources, self.examples.targets, strict=True))
        return (text for example in self.examples for text in (example.source, example.target))

    def languages(self) -> set[tuple[str, str]]:
        """The languages of (source, target) that occur."""
        if isinstance(self.examples, Rows):
            return set(self.examples.languages)
        return {example.languages for example in self.examples}

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
        chosen, read = list(indices), self.read
        if isinstance(indices, range) and indices.step == 1:
            some = self.examples[indices.start : indices.stop]
        else:
            some = at(self.examples, chosen)
        return replace(
            self,
            examples=some,
            read=None if read is None else (lambda k: read(chosen[k])),
            kept=None,
            windows=None,
        )

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)
