"""Tokenised sets on disk: the ids of all sources and targets, one after another, and where each begins."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch

from sourcewise.config import DataConfig
from sourcewise.data.encoding import SOME, Cut, Encoded, ExampleSet, Ids
from sourcewise.data.examples import Dataset, Rows
from sourcewise.data.sequences import BLOCK, Lazy
from sourcewise.data.stored.store import megabytes, part_of
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import tell
from sourcewise.runtime.processes import map_in_processes, worker_count

SIDES = ("sources", "targets")
VERSION = 1
THREADS = "TOKENIZERS_PARALLELISM"  # the environment's switch of the tokenizers library


class StoredIds(Sequence[list[int]]):
    """The ids of many texts in one file; `lengths` (texts,) are their numbers."""

    def __init__(self, path: Path, dtype: str, lengths: np.ndarray) -> None:
        self.ends = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        # A plain array of the mapped file: slices of a memmap take several times as long.
        self.flat: np.ndarray = np.asarray(np.memmap(path, dtype, "r")) if self.ends[-1] else np.zeros(0, dtype)

    @overload
    def __getitem__(self, index: int) -> list[int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[int]]: ...
    def __getitem__(self, index: int | slice) -> list[int] | list[list[int]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        found: list[int] = self.flat[self.ends[place] : self.ends[place + 1]].tolist()
        return found

    def at(self, places: Sequence[int]) -> list[list[int]]:
        """See `sequences.at`."""
        chosen = np.arange(len(self))[np.asarray(places, dtype=np.int64)]
        ends = zip(self.ends[chosen].tolist(), self.ends[chosen + 1].tolist(), strict=True)
        return [self.flat[start:end].tolist() for start, end in ends]

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, len(self), BLOCK):
            ends = self.ends[start : start + BLOCK + 1]
            block = self.flat[ends[0] : ends[-1]].tolist()
            yield from (block[a:b] for a, b in pairwise((ends - ends[0]).tolist()))

    def __len__(self) -> int:
        return len(self.ends) - 1

    def arrays(self, size: int) -> Iterator[np.ndarray]:
        """Yields the ids of so many texts at a time, (ids,) int64."""
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            yield self.flat[self.ends[start] : self.ends[stop]].astype(np.int64)


class StoredSet(ExampleSet):
    """A tokenised set of texts whose ids are on disk."""

    def __init__(self, dataset: Dataset, tokenizer: Tokenizer, data: DataConfig, folder: Path, record: Any) -> None:
        self.dataset, self.tokenizer, self.max_frames = dataset, tokenizer, data.max_frames
        self.source_lengths, self.target_lengths = (
            np.fromfile(folder / f"{side}.lengths", dtype=np.int32).astype(np.int64) for side in SIDES
        )
        lengths = (self.source_lengths, self.target_lengths)
        self._ids = [StoredIds(folder / side, record["dtype"], n) for side, n in zip(SIDES, lengths, strict=True)]
        self.sources: Ids = self._ids[0]
        self.targets: Ids = self._ids[1]
        self.begins = _begins(dataset, tokenizer, data)
        notes = (Cut(**cut).note(dataset, tokenizer) for cut in record["cuts"])
        self.notes = [*dataset.notes, *(note for note in notes if note)]
        self._digest: str = record["digest"]

    def digest(self) -> str:
        """See ExampleSet; it was taken when the ids were written."""
        return self._digest if self.dataset.kept else super().digest()

    def contents(self) -> Iterator[np.ndarray]:
        """See ExampleSet."""
        if not self.dataset.kept:
            yield from super().contents()
            return
        yield from contents_of(self._ids)


def encode_stored(dataset: Dataset, tokenizer: Tokenizer, data: DataConfig) -> StoredSet:
    """Tokenise a kept set, by one process per core; the ids are kept beside its texts and used again.

    They are those of `Encoded`, which tokenises each block of examples. Raises RequestError.
    """
    kept = dataset.kept
    assert kept is not None
    limits = (dataset.task.max_source or data.max_source, dataset.task.max_target or data.max_target)
    how = (VERSION, kept.key, tokenizer.digest(), limits, data.languages(), tokenizer.cuts_left)
    name = f"ids-{hashlib.blake2b(repr(how).encode(), digest_size=10).hexdigest()}"
    folder, record = part_of(kept.folder, name, lambda part: _make(part, dataset, tokenizer, data))
    return StoredSet(dataset, tokenizer, data, folder, record)


def _make(part: Path, dataset: Dataset, tokenizer: Tokenizer, data: DataConfig) -> dict[str, Any]:
    """Write the ids of a set into a folder; returns the record."""
    dtype = "uint16" if tokenizer.size <= 1 << 16 else "int32"

    def block(number: int) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[Cut]]:
        """The ids and lengths of both sides of a block of examples."""
        gc.disable()  # millions of lists, none of which is part of a cycle
        try:
            encoded = Encoded(dataset[number * BLOCK : (number + 1) * BLOCK], tokenizer, data)
        finally:
            gc.enable()
        assert encoded.sources is not None
        both = ((encoded.sources, encoded.source_lengths), (encoded.targets, encoded.target_lengths))
        return [
            (np.fromiter(chain.from_iterable(rows), dtype, int(lengths.sum())), lengths.astype(np.int32))
            for rows, lengths in both
        ], encoded.cuts

    cuts: list[Cut] = []
    count = -(-len(dataset) // BLOCK)
    files = [(open(part / side, "wb"), open(part / f"{side}.lengths", "wb")) for side in SIDES]  # noqa: SIM115
    with _alone_in_its_process():
        for sides, found in map_in_processes(block, count, worker_count(torch.device("cpu"))):
            for (ids, lengths), (of_ids, of_lengths) in zip(sides, files, strict=True):
                of_ids.write(ids.tobytes())
                of_lengths.write(lengths.tobytes())
            cuts = [a.joined(b) for a, b in zip(cuts, found, strict=True)] if cuts else found
    for of_ids, of_lengths in files:
        of_ids.close()
        of_lengths.close()
    lengths = [np.fromfile(part / f"{side}.lengths", dtype=np.int32) for side in SIDES]
    both = [StoredIds(part / side, dtype, n) for side, n in zip(SIDES, lengths, strict=True)]
    digest = hashlib.blake2b(digest_size=16)
    for array in contents_of(both):
        digest.update(np.ascontiguousarray(array).data)
    tell(f"{dataset.name}: tokenised, {megabytes(part):,.0f} MB of ids in {part.parent}")
    return {"dtype": dtype, "cuts": [asdict(cut) for cut in cuts], "digest": digest.hexdigest()}


def contents_of(both: Sequence[StoredIds]) -> Iterator[np.ndarray]:
    """What `ExampleSet.contents` yields of the same ids in memory."""
    yield from (np.diff(ids.ends) for ids in both)
    for ids in both:
        yield from ids.arrays(SOME)


def _begins(dataset: Dataset, tokenizer: Tokenizer, data: DataConfig) -> Ids | None:
    """See `ExampleSet.begins`."""
    rows, default = dataset.examples, data.languages()
    pairs = {pair if any(pair) else default for pair in dataset.languages()}
    if not any(target for _, target in pairs) or not isinstance(rows, Rows):
        return None
    openings: dict[tuple[str, str], list[int]] = {pair: tokenizer.in_languages(*pair).opening for pair in pairs}
    return Lazy(lambda i: openings[rows.languages[i] if any(rows.languages[i]) else default], len(rows))


@contextlib.contextmanager
def _alone_in_its_process() -> Iterator[None]:
    """Within: tokenizers use one thread, since processes that are forked now share the cores."""
    before = os.environ.get(THREADS)
    if worker_count(torch.device("cpu")) > 1:
        os.environ[THREADS] = "false"
    try:
        yield
    finally:
        os.environ.pop(THREADS, None)
        os.environ.update({THREADS: before} if before is not None else {})
