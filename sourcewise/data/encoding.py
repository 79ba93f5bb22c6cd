"""Tokenised data sets: texts are tokenised once, batches are made on demand."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from sourcewise.config import DataConfig
from sourcewise.config.data import OF_COLUMN
from sourcewise.data.batches import FRAMES, IGNORED, TOKENS, Batch, Source, pad, pad_features
from sourcewise.data.examples import Dataset, Note, unnamed
from sourcewise.data.readers.conversations import fit
from sourcewise.data.sequences import at
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import DataWarning

Augment = Callable[[np.ndarray], np.ndarray]
Ids = Sequence[Sequence[int] | np.ndarray]
SOME = 10_000  # examples whose ids are processed at a time
MATRICES = 16  # matrices of a set for the digest


class ExampleSet:
    """Interface of tokenised examples, for batches, rules and measures.

    `source_lengths` and `target_lengths` are (examples,) int64: tokens, or frames of a feature source, after
    truncation. `sources` and `targets` hold the ids; for features, `sources` are the prompts, or None without prompts.
    """

    dataset: Dataset
    tokenizer: Tokenizer
    max_frames: int  # matrices are truncated to this
    sources: Ids | None
    targets: Ids
    begins: Ids | None = None  # ids that each output begins with, such as its language; None: as the network says
    source_lengths: np.ndarray
    target_lengths: np.ndarray
    weights: np.ndarray | None = None  # (examples,) how often each is drawn in training; None: once per epoch
    notes: Sequence[Note] = ()  # on data that is not used as it stands
    per_pass: int = 1  # of a stream: windows of one pass over it, of which `at` gives each
    drawn: ClassVar[bool] = False  # whether the pairs are made from plain text, anew in each epoch

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def parts(self) -> Sequence[ExampleSet]:
        """The sets of a mixture; for other sets, the set itself."""
        return [self]

    def tell(self) -> None:
        """Warn (DataWarning) of notes on the complete set, such as the number of truncated texts."""
        for note in self.notes:
            if not note.where:
                warnings.warn(f"{note.file}: {note.what}", DataWarning, stacklevel=3)

    def digest(self) -> str:
        """A digest that is equal for sets with equal ids in equal order, from lengths, ids and a few matrices."""
        digest = hashlib.blake2b(digest_size=16)
        for part in self.parts:
            for array in part.contents():
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def contents(self) -> Iterator[np.ndarray]:
        """The arrays for `digest`: lengths, ids, and some matrices."""
        yield from (self.source_lengths, self.target_lengths)
        for rows in (self.sources, self.targets):
            for start in range(0, len(rows or ()), SOME):
                yield np.concatenate([np.asarray(ids, dtype=np.int64) for ids in (rows or ())[start : start + SOME]])
        if self.dataset.dims:
            for i in np.unique(np.linspace(0, len(self) - 1, MATRICES).astype(int)):
                yield self.dataset.features(int(i))

    def at(self, epoch: int) -> ExampleSet:
        """The examples of an epoch; the same in every epoch unless `drawn`."""
        return self

    def select(self, indices: Sequence[int]) -> ExampleSet:
        """A set of only these examples, in this order."""
        chosen, other = list(indices), copy.copy(self)
        other.dataset = self.dataset.select(chosen)
        other.sources = None if self.sources is None else at(self.sources, chosen)
        other.targets = at(self.targets, chosen)
        other.begins = None if self.begins is None else at(self.begins, chosen)
        other.source_lengths, other.target_lengths = self.source_lengths[chosen], self.target_lengths[chosen]
        return other

    def read(self, index: int) -> np.ndarray:
        """The truncated source as the network reads it: frames or ids, without a prompt beside features."""
        if self.dataset.dims:
            return self.dataset.features(index)[: self.max_frames]
        assert self.sources is not None
        return np.asarray(self.sources[index])

    def batch(self, indices: Sequence[int] | np.ndarray, augment: Augment | None = None, *, coarse: int = 0) -> Batch:
        """The padded batch of these examples; `augment` changes each truncated (frames, dims) matrix.

        `coarse` rounds widths up, so that there are few shapes in training: 1 (or True) as a CPU wants it, a larger
        number to its multiples.
        """
        chosen = [int(i) for i in indices]
        labels, _ = pad([self.targets[i] for i in chosen], IGNORED, _multiple(TOKENS, coarse))
        return Batch(self.source(chosen, augment, coarse=coarse), labels, chosen)

    def source(self, indices: Sequence[int] | np.ndarray, augment: Augment | None = None, *, coarse: int = 0) -> Source:
        """The sources alone, as in `batch`."""
        source = Source()
        if self.sources is not None:
            rows = [self.sources[int(i)] for i in indices]
            source.tokens, source.token_lengths = pad(rows, self.tokenizer.pad_id, _multiple(TOKENS, coarse))
        if self.dataset.dims:
            matrices = [self.read(int(i)) for i in indices]
            if augment is not None:
                matrices = [augment(matrix) for matrix in matrices]
            source.features, source.frames = pad_features(matrices, _multiple(FRAMES, coarse))
        return source


def _multiple(usual: int, coarse: int) -> int:
    """What a width is a multiple of, see `ExampleSet.batch`."""
    return coarse if coarse > 1 else usual if coarse else 1


class Spoken:
    """The tokenizers of the languages of a set. Raises RequestError for a language that the tokenizer lacks."""

    def __init__(self, tokenizer: Tokenizer, dataset: Dataset, data: DataConfig) -> None:
        default = data.languages()
        by_column = next((name for name in default if name.startswith(OF_COLUMN)), None)
        if by_column and not all(any(example.languages) for example in dataset):
            raise unnamed(dataset.name, by_column)
        self.of = [example.languages if any(example.languages) else default for example in dataset]
        self.tokenizers = {pair: tokenizer.in_languages(*pair) for pair in dict.fromkeys(self.of)}

    def encode(self, texts: Sequence[str], *, target: bool = False) -> list[list[int]]:
        """The ids of one text per example, as sources or targets of its languages."""
        rows: list[list[int]] = [[] for _ in texts]
        for pair, tokenizer in self.tokenizers.items():
            places = [i for i, of in enumerate(self.of) if of == pair]
            found = tokenizer.encode_batch([texts[i] for i in places], target=target)
            for place, ids in zip(places, found, strict=True):
                rows[place] = ids
        return rows

    def begins(self) -> Ids | None:
        """What each output begins with, where a target's language was chosen, or its class says so; None: neither."""
        prompted = any(tokenizer.prompt for tokenizer in self.tokenizers.values())
        if not prompted and not any(target for _, target in self.tokenizers):
            return None
        if prompted:
            return [self.tokenizers[pair].prompt for pair in self.of]
        openings = {pair: tokenizer.opening for pair, tokenizer in self.tokenizers.items()}
        return [openings[pair] for pair in self.of]


@dataclass(frozen=True, slots=True)
class Cut:
    """How many texts, or matrices, of one side are cut to an option, and the longest of them."""

    side: str
    option: str
    most: int
    unit: str
    beyond: int
    of: int
    longest: int

    def joined(self, other: Cut) -> Cut:
        """The same of more examples."""
        beyond, of, longest = self.beyond + other.beyond, self.of + other.of, max(self.longest, other.longest)
        return replace(self, beyond=beyond, of=of, longest=longest)

    def note(self, dataset: Dataset, tokenizer: Tokenizer) -> Note | None:
        """A note on them; None if none is cut."""
        if not self.beyond:
            return None
        count = f"{self.beyond:,} of {self.of:,} {self.side} {'is' if self.beyond == 1 else 'are'} cut"
        side = " from the left" if self.unit == "tokens" and tokenizer.cuts_left else ""
        what = f"{count}{side} to {self.option} {self.most:,}; the longest has {self.longest:,} {self.unit}"
        return Note(dataset.name, "", what)


class Encoded(ExampleSet):
    """A tokenised data set; matrices are read when a batch needs them.

    Examples are truncated to `max_source`, `max_frames` and `max_target` (or the set's own limits): texts keep their
    end of text, and histories of conversations are truncated on the left, between turns. `notes` are those of the set,
    and the number of truncated examples with the option and the longest length.
    """

    def __init__(self, dataset: Dataset, tokenizer: Tokenizer, data: DataConfig) -> None:
        self.dataset = dataset
        self.tokenizer = tokenizer
        self.max_frames = data.max_frames
        max_source, max_target = dataset.task.max_source or data.max_source, dataset.task.max_target or data.max_target
        sides = [example.source for example in dataset], [example.target for example in dataset]
        self.notes = list(dataset.notes)
        self.cuts: list[Cut] = []
        spoken = Spoken(tokenizer, dataset, data)
        said, self.begins = spoken.encode(sides[1], target=True), spoken.begins()
        self.targets: Ids = [tokenizer.shorten(ids, max_target, target=True) for ids in said]
        self.sources: Ids | None = None
        plain = np.array([not example.turns for example in dataset])  # conversations have separate notes
        if any(sides[0]) or not dataset.dims:
            whole = spoken.encode(sides[0])
            self.sources = [tokenizer.shorten(ids, max_source) for ids in whole]
            side = "prompts" if dataset.dims else "sources"
            self._note_cut(side, _lengths(whole)[plain], max_source, "max_source", "tokens")
            if not plain.all():
                self._fit_conversations(whole, said, max_source, max_target)
        self._note_cut("targets", _lengths(said)[plain], max_target, "max_target", "tokens")
        self.target_lengths = _lengths(self.targets)
        if dataset.dims:
            frames = np.array([example.frames for example in dataset], dtype=np.int64)
            self._note_cut("sources", frames, data.max_frames, "max_frames", "frames")
            self.source_lengths = np.minimum(frames, data.max_frames)
        else:
            assert self.sources is not None
            self.source_lengths = _lengths(self.sources)

    def _note_cut(self, side: str, lengths: np.ndarray, most: int, option: str, unit: str) -> None:
        """Add a note with the number of lengths (examples,) above a limit, and the longest of them."""
        beyond, longest = int((lengths > most).sum()), int(lengths.max(initial=0))
        self.cuts.append(Cut(side, option, most, unit, beyond, len(lengths), longest))
        note = self.cuts[-1].note(self.dataset, self.tokenizer)
        self.notes = [*self.notes, note] if note else self.notes

    def _fit_conversations(self, whole: Ids, said: Ids, max_source: int, max_target: int) -> None:
        """Truncate long histories on the left instead of the right, with notes."""
        assert isinstance(self.sources, list)
        notes, file = [*self.notes], self.dataset.name
        for i, example in enumerate(self.dataset):
            if example.turns and len(whole[i]) > max_source:
                self.sources[i] = fit(example.turns, max_source, self.tokenizer)
                notes.append(Note(file, example.id, f"history cut from the left to max_source {max_source}"))
            if example.turns and len(said[i]) > max_target:
                notes.append(Note(file, example.id, f"reply cut to max_target {max_target}"))
        self.notes = notes


def _lengths(rows: Ids) -> np.ndarray:
    """(examples,) int64 numbers of ids."""
    return np.array([len(ids) for ids in rows], dtype=np.int64)
