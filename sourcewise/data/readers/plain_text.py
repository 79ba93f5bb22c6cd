"""Plain text for pre-training: concatenated documents, cut into pieces that are corrupted anew each epoch."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from sourcewise.config import DataConfig, DatasetConfig
from sourcewise.data.encoding import Encoded, ExampleSet
from sourcewise.data.examples import Dataset, Example
from sourcewise.data.noise.denoising import MODES, corrupt, denoisers
from sourcewise.data.readers.doubtful import notes_on
from sourcewise.data.readers.lines import read_lines
from sourcewise.data.readers.tables import Table, endings, read_table
from sourcewise.data.sequences import Lazy
from sourcewise.data.stored.encoded import encode_stored
from sourcewise.data.streams import Streamed
from sourcewise.data.tokenizers.backends import SENTINEL
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError

CHUNK = 4096  # documents tokenised at a time
REMEMBERED = 1024  # cached corrupted pieces, since a batch reads its targets first, then its sources


def read_documents(path: Path, config: DatasetConfig) -> Dataset:
    """The documents of a text file, one per line, or of the columns of a table, column by column.

    A document is the target of an example without a source; empty ones are left out. The columns are `source` and
    `target` of the config if named, else `text`. Raises RequestError that names the file.
    """
    named = [name for name in (config.source, config.target) if name]
    table = read_table(path, config.quoting) if path.suffix.lower() in endings() else None
    if table is None and named:
        raise RequestError(f"{path}: has no column {named[0]!r}: of a .txt each line is a document; leave it out")
    columns: list[Sequence[str]] = (
        [read_lines(path)] if table is None else _columns(table, named or ["text"], config.limit)
    )
    rows = len(columns[0][: config.limit])
    texts = [text for column in columns for text in column[:rows]]
    filled = np.array([place for place, text in enumerate(texts) if text.strip()], dtype=np.int64)

    def document(index: int) -> Example:
        place = int(filled[index])
        text = texts[place].lower() if config.lowercase else texts[place]
        where = table.where(place % rows) if table else f"{path}:{place + 1}"
        return Example(str(place + 1), text, where=where)

    notes = table.notes if table else notes_on(columns[0], str(path))
    return Dataset(Lazy(document, len(filled)), str(path), plain=config, notes=notes)


def _columns(table: Table, names: Sequence[str], limit: int | None) -> list[Sequence[str]]:
    columns = [table.text(name, limit) for name in names]
    table.bad.settle(table.wheres(len(columns[0])))
    return columns


def encode_set(dataset: Dataset, tokenizer: Tokenizer, data: DataConfig, seed: int = 0) -> ExampleSet:
    """A set as ids: plain text as spoiled pieces of it, drawn from `seed`, all else as it is. Raises RequestError."""
    if dataset.kept is not None:
        return encode_stored(dataset, tokenizer, data)
    if dataset.windows is not None:
        return Streamed(dataset, tokenizer, data)
    if dataset.plain is None:
        return Encoded(dataset, tokenizer, data)
    return Denoised(dataset, tokenizer, data, seed)


class Denoised(ExampleSet):
    """Plain text as pieces whose dropped spans are the targets.

    The tokens of all documents form one ring, as in T5 without separators, since an end of text inside a target would
    end an output there. An epoch starts anywhere in the ring and cuts consecutive pieces; all denoisers get equally
    many, in an order drawn in rounds. All draws are functions of (seed, epoch, piece). Each source has exactly
    `max_source` tokens; sequential ones are shorter.
    `kinds`, `sizes`, `starts`, `dropped` and `spans` are (pieces,): index of the denoiser, number of tokens, start in
    the ring, number of dropped tokens and of spans. `numbers` are the pieces chosen by `select`.
    """

    drawn = True

    def __init__(self, dataset: Dataset, tokenizer: Tokenizer, data: DataConfig, seed: int = 0) -> None:
        assert dataset.plain is not None
        self.name, self.task, self.tokenizer, self.seed = dataset.name, dataset.task, tokenizer, seed
        self.max_frames = data.max_frames
        self.denoisers = denoisers(dataset.plain)
        self.sentinels = np.array(tokenizer.sentinels, dtype=np.int32)
        self.modes = {mode: _mode_ids(mode, tokenizer, self.name) for mode in {d.mode for d in self.denoisers}}
        self.tokens = _tokens(dataset, tokenizer)
        budget = dataset.task.max_source or data.max_source
        pieces = [d.piece(budget - len(self.modes[d.mode])) for d in self.denoisers]
        self.pieces = np.minimum(pieces, len(self.tokens))
        self._check(budget, dataset.task.max_target or data.max_target)
        self.rounds = max(1, len(self.tokens) // int(self.pieces.sum()))
        self.numbers = np.arange(self.rounds * len(self.denoisers))
        self._draw(0)

    def contents(self) -> Iterator[np.ndarray]:
        """See ExampleSet: the ring of tokens, and how it is cut."""
        yield from (self.tokens, self.pieces)

    def at(self, epoch: int) -> Denoised:
        """The same number of pieces of another epoch."""
        other = copy.copy(self)
        other._draw(epoch)
        return other

    def select(self, indices: Sequence[int]) -> Denoised:
        """These pieces only, in this order."""
        other = copy.copy(self)
        other.numbers = self.numbers[list(indices)]
        other._lay_out()
        return other

    def _check(self, budget: int, most: int) -> None:
        """Raises RequestError if there are too few sentinels, or if targets would be too long."""
        if self.pieces.min() < 2:
            raise RequestError(f"{self.name}: max_source {budget} leaves no room for spans; set 8 or more")
        kinds = list(zip(self.denoisers, self.pieces.tolist(), strict=True))
        spans, longest = max(d.drops(n)[1] for d, n in kinds), max(d.lengths(n)[1] for d, n in kinds)
        if spans > len(self.sentinels):
            has, cure = f"{len(self.sentinels)} sentinels", "set a lower max_source"
            if not len(self.sentinels):
                has, cure = "no sentinels (<extra_id_0>, …)", "leave data.tokenizer out to train one that has"
            problem = f"{spans} spans are dropped from a source of {budget} tokens, the tokenizer has {has}"
            raise RequestError(f"{self.name}: {problem}; {cure}")
        if longest > most:
            problem = f"the dropped spans make targets of {longest} tokens, max_target is {most}"
            raise RequestError(f"{self.name}: {problem}; set it to {longest}, or a lower max_source")

    def _draw(self, epoch: int) -> None:
        """Draw the start, the denoiser and the dropped tokens of each piece of an epoch."""
        self.epoch = epoch
        rng = np.random.default_rng([self.seed, epoch])
        kinds = rng.permuted(np.tile(np.arange(len(self.denoisers)), (self.rounds, 1)), axis=1).ravel()
        self.kinds, self.sizes = kinds, self.pieces[kinds]
        self.starts = rng.integers(len(self.tokens)) + np.cumsum(self.sizes) - self.sizes
        drops = np.array([d.drops(int(n)) for d, n in zip(self.denoisers, self.pieces, strict=True)])
        self.dropped, self.spans = drops[kinds].T
        sequential = np.array([d.sequential for d in self.denoisers])[kinds]
        upto = np.maximum(self.sizes // 2, 2)  # less than half of the piece, a quarter on average
        self.dropped = np.where(sequential, rng.integers(1, upto), self.dropped)
        self._lay_out()

    def _lay_out(self) -> None:
        """Set the attributes of a set of examples for the chosen pieces."""
        chosen = self.numbers
        modes = np.array([len(self.modes[d.mode]) for d in self.denoisers])[self.kinds[chosen]]
        dropped, spans = self.dropped[chosen], self.spans[chosen]
        self.source_lengths = modes + self.sizes[chosen] - dropped + spans + 1
        self.target_lengths = dropped + spans + 1
        pair = lru_cache(REMEMBERED)(self._pair)
        self.sources = Lazy(lambda i: pair(int(chosen[i]))[0], len(chosen))
        self.targets = Lazy(lambda i: pair(int(chosen[i]))[1], len(chosen))
        self.dataset = Dataset(Lazy(self._example, len(chosen)), self.name, task=self.task)

    def _pair(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Source and target of a piece."""
        places = np.arange(self.starts[number], self.starts[number] + self.sizes[number])
        rng = np.random.default_rng([self.seed, self.epoch, number])
        dropped, spans = int(self.dropped[number]), int(self.spans[number])
        source, target = corrupt(self.tokens.take(places, mode="wrap"), dropped, spans, self.sentinels, rng)
        mode, end = self.modes[self.denoisers[self.kinds[number]].mode], [self.tokenizer.eos_id]
        return np.concatenate((mode, source, end)), np.concatenate((target, end))

    def _example(self, index: int) -> Example:
        """A piece as texts: the source with sentinels, the target without, as in decoded outputs."""
        number = int(self.numbers[index])
        source, target = self._pair(number)
        at = np.flatnonzero(np.isin(source, self.sentinels))
        order = {int(sentinel): i for i, sentinel in enumerate(self.sentinels)}
        parts = [self.denoisers[self.kinds[number]].mode]
        for run in np.split(source[len(self.modes[parts[0]]) :], at - len(self.modes[parts[0]])):
            sentinel = order.get(int(run[0])) if len(run) else None
            parts += [] if sentinel is None else [SENTINEL.format(sentinel)]
            parts.append(self.tokenizer.decode(run))
        where = f"{self.name}, piece {number + 1}"
        return Example(str(number + 1), self.tokenizer.decode(target), " ".join(filter(None, parts)), where=where)


def _tokens(dataset: Dataset, tokenizer: Tokenizer) -> np.ndarray:
    """The concatenated ids of all documents, (tokens,) int32, without special tokens that a text spells."""
    special = {*tokenizer.around, *tokenizer.sentinels}
    special |= {ids[0] for ids in (_bare(mode, tokenizer) for mode in MODES) if len(ids) == 1}
    special -= {tokenizer.unk_id}
    chunks = []
    for start in range(0, len(dataset), CHUNK):
        rows = tokenizer.encode_batch([example.target for example in dataset.examples[start : start + CHUNK]])
        ids = np.concatenate([np.array(row, dtype=np.int32) for row in rows])
        chunks.append(ids[~np.isin(ids, list(special))])
    tokens = np.concatenate(chunks)
    if len(tokens) < 2:
        raise RequestError(f"{dataset.name}: {len(tokens)} tokens of text; spans are dropped from at least 2")
    return tokens


def _bare(text: str, tokenizer: Tokenizer) -> list[int]:
    """The ids of a text without the special tokens around it."""
    return [i for i in tokenizer.encode(text) if i not in tokenizer.around - {tokenizer.unk_id}]


def _mode_ids(mode: str, tokenizer: Tokenizer, name: str) -> np.ndarray:
    ids = _bare(mode, tokenizer) if mode else []
    if tokenizer.unk_id in ids:
        raise RequestError(f"{name}: the tokenizer has no {mode}; UL2 needs {', '.join(MODES)} in the vocabulary")
    return np.array(ids, dtype=np.int32)
