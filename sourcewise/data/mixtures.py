"""Several sets as one: each a task with its own prefix, limits, metric and share of the training.

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
from sourcewise.data.readers.plain_text import Lazy, encode_set
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError

Item = TypeVar("Item")
Part = TypeVar("Part", bound=Sized)


def mixing_rates(sizes: Sequence[int], weights: Sequence[float], data: DataConfig) -> np.ndarray:
    """The share of each set, (sets,), of sum 1: its weight times its rate, renormalised.

    The rate is the same for all where `data.rates` is equal; where it is proportional it is min(e, cap) / Σ min(e, cap)
    of e examples, to the power of 1 / temperature: 1 leaves it, the more the evener.
    """
    rates = np.ones(len(sizes))
    if data.rates == "proportional":
        counted = np.minimum(sizes, np.inf if data.rate_cap is None else data.rate_cap)
        rates = (counted / counted.sum()) ** (1 / data.temperature)
    shares = rates * np.asarray(weights, dtype=np.float64)
    return np.asarray(shares / shares.sum())


class EncodedMixture(ExampleSet):
    """Several encoded sets as one: positions run through them one after the other.

    `rates` are the shares of the parts in training (none: every example once an epoch), `weights` those of single
    examples. Raises RequestError where some of the parts have prompts beside their features and some have none.
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
        self.source_lengths = np.concatenate([part.source_lengths for part in parts])
        self.target_lengths = np.concatenate([part.target_lengths for part in parts])
        self.notes = [note for part in parts for note in part.notes]
        if rates is not None:
            weights = np.repeat(np.asarray(rates) / [len(part) for part in parts], [len(part) for part in parts])
            self.weights = None if np.allclose(weights, weights[0], rtol=1e-9) else weights

    @property
    def parts(self) -> list[ExampleSet]:
        """The sets it is made of."""
        return self._parts

    def at(self, epoch: int) -> EncodedMixture:
        """See ExampleSet."""
        parts = [part.at(epoch) for part in self._parts]
        same = all(new is old for new, old in zip(parts, self._parts, strict=True))
        return self if same else EncodedMixture(parts, self.rates)

    def select(self, indices: Sequence[int]) -> EncodedMixture:
        """See ExampleSet; the examples come in the order of their sets, and sets without any are left out."""
        starts = [0, *accumulate(len(part) for part in self._parts)]
        chosen = [[i - start for i in indices if start <= i < end] for start, end in pairwise(starts)]
        return EncodedMixture([part.select(c) for part, c in zip(self._parts, chosen, strict=True) if c])


def encode_sets(sets: Sequence[Dataset], tokenizer: Tokenizer, data: DataConfig, seed: int = 0) -> ExampleSet:
    """Sets as ids: one as it is, several as a mixture in which every example comes once. Raises RequestError."""
    parts = [encode_set(each, tokenizer, data, seed) for each in sets]
    return parts[0] if len(parts) == 1 else EncodedMixture(parts)


def encode_training(sets: Sequence[Dataset], tokenizer: Tokenizer, data: DataConfig, seed: int = 0) -> ExampleSet:
    """The sets of `data.train` as ids, each with the share that the recipe gives it. Raises RequestError."""
    encoded = encode_sets(sets, tokenizer, data, seed)
    if len(sets) == 1:
        return encoded
    weights = [config.weight for config in data.sets("train")]
    return EncodedMixture(encoded.parts, mixing_rates([len(part) for part in encoded.parts], weights, data))


def spread(encoded: ExampleSet, count: int) -> ExampleSet:
    """At most `count` examples, spread evenly through each set, and as many of each as far as it has them."""
    parts = encoded.parts
    each = max(1, count // len(parts))
    chosen = [np.linspace(0, len(p) - 1, min(len(p), each)).astype(int).tolist() for p in parts]
    if sum(map(len, chosen)) == len(encoded):
        return encoded
    selected = [part.select(places) for part, places in zip(parts, chosen, strict=True)]
    return selected[0] if len(selected) == 1 else EncodedMixture(selected)


def join(sets: Sequence[Dataset]) -> Dataset:
    """One set of all examples, for who needs to see them all; an id says whose it is: `TASK:ID`."""
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
        notes=[note for s in sets for note in s.notes],
    )


def _place(sizes: Sequence[int]) -> Callable[[int], tuple[int, int]]:
    """Position in all → (which of them, position in that)."""
    starts = [0, *accumulate(sizes)]

    def find(index: int) -> tuple[int, int]:
        which = bisect_right(starts, index, hi=len(sizes)) - 1
        return which, index - starts[which]

    return find


def _chain(parts: Sequence[Part], item: Callable[[Part, int], Item]) -> Lazy[Item]:
    """Sequences one after the other, without copying any; `item(part, index)` reads one of a part."""
    sizes = [len(part) for part in parts]
    find = _place(sizes)

    def make(index: int) -> Item:
        which, place = find(index)
        return item(parts[which], place)

    return Lazy(make, sum(sizes))


def _same(part: Sequence[Item], index: int) -> Item:
    return part[index]
