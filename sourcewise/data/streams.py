"""Streams: pairs in Parquet files or shards, read one window after another, and never in memory as a whole.

A window is so many consecutive examples; row groups and shards come in an order that is drawn anew in each pass, and
a window's examples are shuffled like those of a set in memory. A window is a function of its number, so a run resumes
exactly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np

from sourcewise.config import DataConfig
from sourcewise.data.encoding import Encoded
from sourcewise.data.examples import Dataset, Note
from sourcewise.data.readers.cells import ABSENT
from sourcewise.data.readers.pairs import in_memory, pairs_of
from sourcewise.data.readers.shards import TAR, is_shard, named_shards, of_shard
from sourcewise.data.readers.tables import Table, of_shards, values_of
from sourcewise.data.sequences import BLOCK
from sourcewise.data.stored.columns import InMemory
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError, tell
from sourcewise.runtime.extras import parquet

ORDER = 23  # of the draws of the order of row groups


@dataclass(frozen=True, slots=True)
class Group:
    """A row group of a Parquet file, or a shard: its place there, the number of rows before it, and of its own."""

    path: Path
    place: int
    before: int
    rows: int


class Stream:
    """The pairs of a Parquet file or a shard, or of all in a folder, in windows of `size` examples.

    `options` are those of `pairs_of`.

    Raises RequestError for other files, and from `window` for bad rows.
    """

    def __init__(self, path: Path, size: int, limit: int | None = None, **options: Any) -> None:
        self.path, self.size, self.options, self.name = path, size, options, str(path)
        self.groups = _first(_groups(path), limit)
        self.rows = sum(group.rows for group in self.groups)
        if not self.rows:
            raise RequestError(f"{path}: no examples; a set needs at least one")
        self.per_pass = -(-self.rows // size)

    def window(self, number: int) -> Dataset:
        """The examples of a window; those of `per_pass` windows are a pass."""
        once, place = divmod(number, self.per_pass)
        order = np.random.default_rng([ORDER, once]).permutation(len(self.groups))
        groups = [self.groups[i] for i in order]
        start, stop = place * self.size, min(self.rows, (place + 1) * self.size)
        parts = []
        for group, end in zip(groups, accumulate(group.rows for group in groups), strict=True):
            first, last = max(0, start - end + group.rows), min(group.rows, stop - end + group.rows)
            if first < last:
                parts.append(self._read(group, first, last))
        examples = [example for part in parts for example in part]
        notes = [note for part in parts for note in part.notes]
        return Dataset(examples, str(self.path), notes=notes, per_pass=self.per_pass)

    def _read(self, group: Group, first: int, last: int) -> Dataset:
        """The rows first … last − 1 of a row group or shard."""
        if is_shard(group.path):
            some = dict(islice(of_shard(group.path).items(), first, last))
            table = replace(of_shards(str(group.path), some), lines=range(first + 1, last + 1))
            return in_memory(pairs_of(table, **self.options))
        pyarrow = parquet(group.path)
        gathered, at = InMemory(ABSENT), 0
        try:
            with pyarrow.parquet.ParquetFile(group.path, memory_map=False) as file:
                for batch in file.iter_batches(BLOCK, row_groups=[group.place]):
                    some = batch.slice(max(0, first - at), max(0, min(last - at, batch.num_rows) - max(0, first - at)))
                    gathered.add({name: values_of(some.column(name)) for name in batch.schema.names}, some.num_rows)
                    at += batch.num_rows
                    if at >= last:
                        break
        except (pyarrow.ArrowException, OSError) as error:
            raise RequestError(f"{group.path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None
        table = Table(str(group.path), gathered.columns(), range(group.before + first + 1, group.before + last + 1))
        found = in_memory(pairs_of(table, **self.options))
        if "id" not in table.columns:
            shift = group.before + first
            found.examples = [replace(example, id=str(int(example.id) + shift)) for example in found]
        return found


def _groups(path: Path) -> list[Group]:
    """The row groups of a Parquet file, or of those in a folder, or shards, in order of name. Raises RequestError."""
    if is_shard(path) or (path.is_dir() and not any(path.glob("*.parquet")) and any(path.glob("*" + TAR))):
        shards = sorted(path.glob("*" + TAR)) if path.is_dir() else named_shards(path)
        return [Group(shard, 0, 0, len(of_shard(shard))) for shard in shards]
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or any(file.suffix.lower() != ".parquet" for file in files):
        problem = "holds no .parquet or .tar" if path.is_dir() else "no Parquet file and no shard"
        how = "stream reads Parquet, .tar and hub:NAME; without stream a large table is kept on disk"
        raise RequestError(f"{path}: {problem}; {how}")
    found = []
    for file in files:
        if not file.is_file():
            raise RequestError(f"{file}: no such file")
        pyarrow = parquet(file)
        try:
            known, before = pyarrow.parquet.read_metadata(file), 0
        except (pyarrow.ArrowException, OSError) as error:
            raise RequestError(f"{file}: not a readable Parquet file ({str(error).splitlines()[0]})") from None
        for place in range(known.num_row_groups):
            found.append(Group(file, place, before, known.row_group(place).num_rows))
            before += found[-1].rows
    return found


def _first(groups: Sequence[Group], limit: int | None) -> list[Group]:
    """The groups of the first `limit` rows."""
    found, left = [], limit
    for group in groups:
        rows = group.rows if left is None else min(group.rows, left)
        if rows:
            found.append(replace(group, rows=rows))
        left = None if left is None else left - rows
    return found


class Streamed(Encoded):
    """The tokenised examples of a window of a stream, which knows the others: `at` gives any, and prepares the next."""

    def __init__(
        self, dataset: Dataset, tokenizer: Tokenizer, data: DataConfig, windows: Windows | None = None
    ) -> None:
        super().__init__(dataset, tokenizer, data)
        self.per_pass = dataset.per_pass
        self._note_unknown()
        self.windows = windows or Windows(self, data)

    def at(self, epoch: int) -> Streamed:
        """See ExampleSet. Raises RequestError for bad rows in the window."""
        return self.windows[epoch]

    def _note_unknown(self) -> None:
        """Add a note with the number of texts that the tokenizer cannot say: it was trained on the first ones."""
        unknown = self.tokenizer.unk_id
        if unknown in (*self.tokenizer.around, self.tokenizer.pad_id):
            return  # a tokenizer of bytes, which knows all
        for side, rows in (("sources", self.sources or ()), ("targets", self.targets)):
            if count := sum(unknown in ids for ids in rows):
                what = f"{count:,} of {len(rows):,} {side} of a window hold what the tokenizer does not know"
                self.notes = [*self.notes, Note(self.dataset.name, "", what)]

    def contents(self) -> Iterator[np.ndarray]:
        """See ExampleSet: of the first window, and how many there are."""
        yield np.array([self.per_pass])
        yield from super().contents()


class Windows:
    """The tokenised windows of a stream: the last one asked for, and the next, which a thread prepares.

    Notes of later windows are told if they are of a new kind.
    """

    def __init__(self, first: Streamed, data: DataConfig) -> None:
        self.first, self.data = first, data
        self.kinds = {_kind(note) for note in first.notes}
        self.thread = ThreadPoolExecutor(1, "reading")
        self.ready: dict[int, Future[Streamed]] = {}

    def __getitem__(self, number: int) -> Streamed:
        """A window. Raises RequestError for bad rows in it."""
        wanted = (number, number + 1)
        self.ready = {n: self.ready.get(n) or self.thread.submit(self._make, n) for n in wanted}
        found = self.ready[number].result()
        fresh = {_kind(note): note for note in reversed(found.notes) if _kind(note) not in self.kinds}
        for kind, note in fresh.items():
            count = sum(_kind(each) == kind for each in found.notes)
            tell(f"{note.file}: {note.what}" + f" ({count:,} such, the first at {note.where})" * bool(note.where))
        self.kinds |= fresh.keys()
        return found

    def _make(self, number: int) -> Streamed:
        if number == 0:
            return self.first
        read = self.first.dataset.windows
        assert read is not None
        return Streamed(read(number), self.first.tokenizer, self.data, self)


def _kind(note: Note) -> str:
    return re.sub(r"\d[\d,]*", "#", note.what)
