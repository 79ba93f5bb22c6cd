"""Mixtures of data sets, each a task with its own prefix, limits, metric and share of the training.

Shares follow T5's two rules (Raffel et al. 2020, §3.5.2): explicit rates (`weight`), or examples-proportional ones with
a cap and a temperature (`data.rates: proportional`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence, Sized
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import TypeVar

import numpy as np

from sourcewise.config import DataConfig
from sourcewise.data.encoding import ExampleSet
from sourcewise.data.examples import Dataset, Example
from sourcewise.data.readers.plain_text import encode_set
from sourcewise.data.sequences import Lazy, evenly
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError, tell

Item = TypeVar("Item")
Part = TypeVar("Part", bound=Sized)
LOOKED_AT = 100_000  # examples of a set on disk that are looked at closely


def mixing_rates(sizes: Sequence[int], weights: Sequence[float], data: DataConfig) -> np.ndarray:
    """The share of each set, (sets,), with sum 1: its weight times its rate, normalised.

    With `data.rates: equal` all rates are equal; with `proportional`, the rate for e examples is
    min(e, cap) / Σ min(e, cap), to the power of 1 / temperature, which makes rates more even above 1.
    """
    rates = np.ones(len(sizes))
    if data.rates == "proportional":
        counted = np.minimum(sizes, np.inf if data.rate_cap is None else data.rate_cap)
        rates = (counted / counted.sum()) ** (1 / data.temperature)
    shares = rates * np.asarray(weights, dtype=np.float64)
    return np.asarray(shares / shares.sum())


class EncodedMixture(ExampleSet):
    """Several tokenised sets as one, with consecutive indices.

    `rates` are the shares of the parts in training (None: every example once per epoch), `weights` those of single
    examples. Raises RequestError if only some parts have prompts beside their features.
    """

    def __init__(self, parts: Sequence[ExampleSet], rates: Sequence[float] | np.ndarray | None = None) -> None:
        first = parts[0]
        self._parts, self.rates = list(parts), rates
        self.tokenizer, self.max_frames = first.tokenizer, first.max_frames
        self.dataset = join([part.dataset for part in parts])
        prompted = [part for part in parts if part.sources is not None]
        if len(prompted) not in (0, len(parts)):
            bare = next(part for part in parts if part.sources is None)
            raise RequestError(
                f"{bare.dataset.name}: has no prompts, {prompted[0].dataset.name} has; give each set a prefix, or none"
            )
        self.sources = _chain([part.sources for part in parts if part.sources is not None], _same) if prompted else None
        self.targets = _chain([part.targets for part in parts], _same)
        begins = [part.begins or [()] * len(part) for part in parts]
        self.begins = _chain(begins, _same) if any(part.begins for part in parts) else None
        self.source_lengths = np.concatenate([part.source_lengths for part in parts])
        self.target_lengths = np.concatenate([part.target_lengths for part in parts])
        self.notes = [note for part in parts for note in part.notes]
        self.per_pass = max(part.per_pass for part in parts)
        if rates is not None:
            weights = np.repeat(np.asarray(rates) / [len(part) for part in parts], [len(part) for part in parts])
            self.weights = None if np.allclose(weights, weights[0], rtol=1e-9) else weights

    @property
    def parts(self) -> list[ExampleSet]:
        """The sets of the mixture."""
        return self._parts

    def at(self, epoch: int) -> EncodedMixture:
        """See ExampleSet."""
        parts = [part.at(epoch) for part in self._parts]
        same = all(new is old for new, old in zip(parts, self._parts, strict=True))
        return self if same else EncodedMixture(parts, self.rates)

    def select(self, indices: Sequence[int]) -> EncodedMixture:
        """See ExampleSet; examples are in the order of the sets, and sets without any are left out."""
        starts = [0, *accumulate(len(part) for part in self._parts)]
        chosen = [[i - start for i in indices if start <= i < end] for start, end in pairwise(starts)]
        return EncodedMixture([part.select(c) for part, c in zip(self._parts, chosen, strict=True) if c])


def encode_sets(sets: Sequence[Dataset], tokenizer: Tokenizer, data: DataConfig, seed: int = 0) -> ExampleSet:
    """Tokenise one set, or several as a mixture in which every example occurs once. Raises RequestError."""
    parts = [encode_set(each, tokenizer, data, seed) for each in sets]
    return parts[0] if len(parts) == 1 else EncodedMixture(parts)


def encode_training(sets: Sequence[Dataset], tokenizer: Tokenizer, data: DataConfig, seed: int = 0) -> ExampleSet:
    """Tokenise the sets of `data.train`, with the recipe's shares. Raises RequestError."""
    encoded = encode_sets(sets, tokenizer, data, seed)
    if len(sets) == 1:
        return encoded
    weights = [config.weight for config in data.sets("train")]
    return EncodedMixture(encoded.parts, mixing_rates([len(part) for part in encoded.parts], weights, data))


def spread(encoded: ExampleSet, count: int) -> ExampleSet:
    """At most `count` examples, spread evenly over each set, equally many from each set if it has them."""
    parts = encoded.parts
    each = max(1, count // len(parts))
    chosen = [np.linspace(0, len(p) - 1, min(len(p), each)).astype(int).tolist() for p in parts]
    if sum(map(len, chosen)) == len(encoded):
        return encoded
    selected = [part.select(places) for part, places in zip(parts, chosen, strict=True)]
    return selected[0] if len(selected) == 1 else EncodedMixture(selected)


def looked_at(encoded: ExampleSet, most: int = LOOKED_AT) -> ExampleSet:
    """The same with at most `most` examples of each set on disk, evenly spread: what checks of the data look at."""
    parts = [
        part.select(evenly(len(part), most).tolist()) if part.dataset.kept and len(part) > most else part
        for part in encoded.parts
    ]
    if all(one is other for one, other in zip(parts, encoded.parts, strict=True)):
        return encoded
    for one, other in zip(parts, encoded.parts, strict=True):
        if one is not other:
            size = f"{len(one):,} of {len(other):,} examples, evenly spread"
            tell(f"{one.dataset.name}: checks of the data look at {size}; what only the others share is not seen")
    return parts[0] if len(parts) == 1 else EncodedMixture(parts, getattr(encoded, "rates", None))


def join(sets: Sequence[Dataset]) -> Dataset:
    """One data set of all examples, with ids `TASK:ID`."""
    if len(sets) == 1:
        return sets[0]

    def named(part: Dataset, index: int) -> Example:
        example = part[index]
        return replace(example, id=f"{part.task.name}:{example.id}")

    read = _place([len(s) for s in sets])

    def features(index: int) -> np.ndarray:
        which, place = read(index)
        return sets[which].features(place)

    return Dataset(
        _chain(list(sets), named),
        name=" + ".join(s.name for s in sets),
        dims=sets[0].dims,
        read=features if sets[0].dims else None,
        from_files=any(s.from_files for s in sets),
        notes=[note for s in sets for note in s.notes],
        made=sets[0].made,
        streams=sets[0].streams if all(s.streams == sets[0].streams for s in sets) else {},
    )


def _place(sizes: Sequence[int]) -> Callable[[int], tuple[int, int]]:
    """A function from an index in all to (set, index in it)."""
    starts = [0, *accumulate(sizes)]

    def find(index: int) -> tuple[int, int]:
        which = bisect_right(starts, index, hi=len(sizes)) - 1
        return which, index - starts[which]

    return find


def _chain(parts: Sequence[Part], item: Callable[[Part, int], Item]) -> Lazy[Item]:
    """Concatenated sequences without copies; `item(part, index)` reads one item."""
    sizes = [len(part) for part in parts]
    find = _place(sizes)

    def make(index: int) -> Item:
        which, place = find(index)
        return item(parts[which], place)

    return Lazy(make, sum(sizes))


def _same(part: Sequence[Item], index: int) -> Item:
    return part[index]
