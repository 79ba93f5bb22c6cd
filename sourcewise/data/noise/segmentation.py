"""Each epoch cuts the words of the training texts into pieces in another way (Kudo 2018; Provilkov et al. 2020).

The texts stay the same; only their segmentation is drawn.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple, overload

import numpy as np

from sourcewise.config import DataConfig, SubwordSamplingConfig
from sourcewise.data.encoding import ExampleSet, Ids
from sourcewise.data.mixtures import EncodedMixture
from sourcewise.data.sequences import blocks
from sourcewise.data.tokenizers.segmentations import OPTION, Segmentations, segmentations
from sourcewise.errors import RequestError, tell

STREAM = 11  # of the random draws; noise on texts and features has others
SOURCE, TARGET = 0, 1


def resegmented(examples: ExampleSet, data: DataConfig, config: SubwordSamplingConfig, seed: int) -> ExampleSet:
    """The training examples, segmented anew in each epoch (`at`); unchanged unless `config.active`.

    Plain text stays as it is, which is told. Raises RequestError for streams, and tokenizers that draw nothing.
    """
    if not config.active:
        return examples
    if any(part.dataset.windows for part in examples.parts):
        raise RequestError(f"{OPTION}: a stream's texts are cut into pieces once; leave it out")
    known = segmentations(examples.tokenizer, config)
    for part in examples.parts:
        if part.drawn:
            tell(f"{OPTION}: {part.dataset.name} is plain text, which is cut into pieces once")
    parts = [
        part if part.drawn else Resegmented(part, known, data, config, seed + place)
        for place, part in enumerate(examples.parts)
    ]
    return EncodedMixture(parts, examples.rates) if isinstance(examples, EncodedMixture) else parts[0]


class Resegmented(ExampleSet):
    """A set whose words are cut into pieces anew in each epoch; the draws are functions of (seed, epoch, example).

    A text that would be longer than `max_source` or `max_target` with its new pieces keeps its old ones.
    """

    def __init__(
        self,
        plain: ExampleSet,
        known: Segmentations,
        data: DataConfig,
        config: SubwordSamplingConfig,
        seed: int,
    ) -> None:
        self._seed, self._config = seed, config
        self.dataset, self.tokenizer, self.max_frames = plain.dataset, plain.tokenizer, plain.max_frames
        self.begins, self.weights, self.notes, self.per_pass = plain.begins, plain.weights, plain.notes, plain.per_pass
        self.sources, self.targets = plain.sources, plain.targets
        self.source_lengths, self.target_lengths = plain.source_lengths, plain.target_lengths
        table = _Table(known)
        self._sides = {SOURCE: None if plain.sources is None else table.spelled(plain.sources)}
        self._sides[TARGET] = table.spelled(plain.targets) if config.targets else None
        self._ways = table.ways()
        task = plain.dataset.task
        self._most = task.max_source or data.max_source, task.max_target or data.max_target
        self._last: dict[int, ExampleSet] = {}  # the epoch that was drawn last

    def at(self, epoch: int) -> ExampleSet:
        """See ExampleSet."""
        if epoch not in self._last:
            self._last.clear()
            self._last[epoch] = self._of(epoch)
        return self._last[epoch]

    def _of(self, epoch: int) -> ExampleSet:
        drawn = copy.copy(self)
        if (sources := self._drawn(SOURCE, epoch)) is not None:
            drawn.sources = sources
            drawn.source_lengths = self.source_lengths if self.dataset.dims else sources.lengths
        if (targets := self._drawn(TARGET, epoch)) is not None:
            drawn.targets, drawn.target_lengths = targets, targets.lengths
        return drawn

    def _drawn(self, side: int, epoch: int) -> Ragged | None:
        """The ids of a side in an epoch."""
        spelled = self._sides[side]
        if spelled is None:
            return None
        rng = np.random.default_rng([self._seed, epoch, STREAM, side])
        return self._ways.drawn(spelled, rng, self._most[side])


class Ragged(Sequence[np.ndarray]):
    """Rows of ids (tokens,) of different lengths, as one array `ids` with `starts` (rows + 1,)."""

    def __init__(self, ids: np.ndarray, starts: np.ndarray) -> None:
        self.ids, self.starts = ids, starts

    @property
    def lengths(self) -> np.ndarray:
        """(rows,) int64."""
        return np.diff(self.starts)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        return self.ids[self.starts[i] : self.starts[i + 1]]

    def __len__(self) -> int:
        return len(self.starts) - 1


class Spelled(NamedTuple):
    """Texts as numbers of words: `words` (words of all texts,), and `starts` (texts + 1,) of each text."""

    words: np.ndarray
    starts: np.ndarray


class Ways(NamedTuple):
    """The segmentations of all words, one after the other.

    `first` (words + 1,) is where each word's segmentations begin. `bounds` (segmentations,) is the sum of the word's
    number and the probability of its segmentations up to this one, so that one search finds a draw. `starts`
    (segmentations + 1,) is where each begins in `ids`, `usual` (words,) that of the tokenizer.
    """

    first: np.ndarray
    bounds: np.ndarray
    starts: np.ndarray
    ids: np.ndarray
    usual: np.ndarray

    def drawn(self, spelled: Spelled, rng: np.random.Generator, most: int) -> Ragged:
        """One segmentation of every word; a text of more than `most` ids then keeps its usual ones."""
        words = spelled.words
        drawn = np.searchsorted(self.bounds, words + rng.random(len(words)), side="right")
        chosen = np.clip(drawn, self.first[words], self.first[words + 1] - 1)  # sums are exact to the last digit only
        sizes = np.diff(self.starts)
        long = np.diff(_sums(sizes[chosen], spelled.starts)) > most
        back = np.repeat(long, np.diff(spelled.starts))
        chosen[back] = self.usual[words[back]]
        return Ragged(_gathered(self.ids, self.starts[chosen], sizes[chosen]), _sums(sizes[chosen], spelled.starts))


class _Table:
    """Numbers words as they come, with their segmentations."""

    def __init__(self, known: Segmentations) -> None:
        self._segmentations = known
        self._numbers: dict[bytes, int] = {}

    def spelled(self, rows: Ids) -> Spelled:
        """Texts as numbers of words."""
        words: list[int] = []
        counts = [0]
        for _, block in blocks(rows):
            for ids in block:
                row = np.asarray(ids, dtype=np.int32)
                cuts = np.flatnonzero(self._cut(row)).tolist()
                pieces = [row[start:end].tobytes() for start, end in zip(cuts, [*cuts[1:], len(row)], strict=True)]
                words.extend(self._numbers.setdefault(piece, len(self._numbers)) for piece in pieces)
                counts.append(len(words))
        return Spelled(np.array(words, dtype=np.int64), np.array(counts, dtype=np.int64))

    def _cut(self, row: np.ndarray) -> np.ndarray:
        """(tokens,) bool: where a word begins. A fixed id is a word of its own."""
        cut = self._segmentations.begins[row]
        if len(row):
            cut[0] = True
            cut[1:] |= self._segmentations.fixed[row[:-1]]
        return cut

    def ways(self) -> Ways:
        """The segmentations of all words that were numbered."""
        first, usual = [0], list[int]()
        bounds, found = list[np.ndarray](), list[list[int]]()
        for word, number in self._numbers.items():
            given = np.frombuffer(word, dtype=np.int32).tolist()
            ways, shares = self._segmentations.of(given)
            usual.append(len(found) + ways.index(given))
            bounds.append(number + np.cumsum(shares))
            found.extend(ways)
            first.append(len(found))
        starts = np.cumsum([0, *map(len, found)])
        ids = np.fromiter(chain.from_iterable(found), np.int32, int(starts[-1]))
        return Ways(
            np.array(first), np.concatenate([np.zeros(0), *bounds]), starts, ids, np.array(usual, dtype=np.int64)
        )


def _sums(sizes: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(rows + 1,) where rows begin whose words have these sizes."""
    return np.concatenate(([0], np.cumsum(sizes)))[starts]


def _gathered(ids: np.ndarray, begins: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The ids of spans that begin at `begins` and have `sizes`, one after the other."""
    ends = np.cumsum(sizes)
    places = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(begins - (ends - sizes), sizes)
    return ids[places]
