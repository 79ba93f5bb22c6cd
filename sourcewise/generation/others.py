"""Other sources for comparison, so that the source bits of each token of an output can be measured.

In order: sources that the caller names; other sources of the same set; the run's own set. Where none is available, or
none differs, an emptied source is used, which says less, since no network was trained on such a source.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sourcewise.config import DatasetConfig
from sourcewise.data.batches import Source, pad
from sourcewise.data.encoding import ExampleSet
from sourcewise.data.open import USES, Use, open_dataset
from sourcewise.data.readers.pairs import HUB
from sourcewise.errors import RequestError
from sourcewise.model.protocol import Network

if TYPE_CHECKING:
    from sourcewise.generation.model import Model

MOST = 8  # other sources: a single one may share a word by chance
SEARCHED = 256  # examples of the run's set


@dataclass(slots=True)
class Others:
    """Sources other than the traced one, with a description in words."""

    source: Source
    told: str
    memory: Any = None  # of the sources, once they are encoded

    def read_by(self, network: Network) -> Any:
        """The memory of the sources, encoded once for any number of outputs."""
        if self.memory is None:
            self.memory = network.encode(self.source)
        return self.memory


class Pool:
    """A set whose sources are taken instead of others."""

    def __init__(self, encoded: ExampleSet) -> None:
        self.encoded = encoded

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """Indices by source length, and these lengths."""
        order = np.argsort(self.encoded.source_lengths, kind="stable")
        return order, np.asarray(self.encoded.source_lengths)[order]

    def nearest(self, encoded: ExampleSet, index: int) -> list[int]:
        """Indices of at most `MOST` sources that differ from `encoded[index]`, nearest length first."""
        order, lengths = self._sorted
        size, reach, found = int(encoded.source_lengths[index]), 0, list[int]()
        own = encoded.read(index)
        while True:
            first, last = np.searchsorted(lengths, (size - reach, size + reach + 1))
            rows = order[first:last]
            near = rows[np.lexsort((rows, abs(self.encoded.source_lengths[rows] - size)))].tolist()
            found = []
            for row in near:
                if len(found) < MOST and self._differs(row, own):
                    found.append(row)
            if len(found) == MOST or len(rows) == len(order):
                return found
            reach = 2 * reach + 1

    def _differs(self, row: int, own: np.ndarray) -> bool:
        return self.encoded.source_lengths[row] != len(own) or not np.array_equal(own, self.encoded.read(row))

    def told(self, count: int) -> str:
        """What `count` of its sources are, in words."""
        number = f"{count} other sources" if count > 1 else "another source"
        name = self.encoded.dataset.name
        return f"{number} of {'those given' if name == 'sources' else PurePath(name).name}"


def find_others(model: Model, encoded: ExampleSet, index: int, against: ExampleSet | None = None) -> Others | None:
    """Other sources for the output of `encoded[index]`; None if no source differs.

    From a set, the examples of nearest length whose sources differ are taken.
    """
    for pool in pools(model, encoded, encoded.dataset[index].source, against):
        rows = pool.nearest(encoded, index)
        if rows:
            return Others(pool.encoded.source(rows), pool.told(len(rows)))
    return emptied(encoded, index)


def pools(
    model: Model, encoded: ExampleSet, text: str, against: ExampleSet | None = None, *, within: bool = True
) -> Iterator[Pool]:
    """Sets of other sources for one that begins with the same prefix as `text`, the best first.

    Without `within` the set itself is none of them.
    """
    if against is not None:
        yield Pool(against)
        return
    if within:
        yield Pool(encoded)

    def fits(own: tuple[Use, DatasetConfig]) -> int:
        """The length of the task prefix that the source begins with, less is better."""
        return -len(own[1].prefix) if text.startswith(own[1].prefix) else 1

    for use, config in sorted(own_sets(model), key=fits):
        limited = config.model_copy(update={"limit": min(config.limit or SEARCHED, SEARCHED)})
        with contextlib.suppress(RequestError):  # the data has been moved: a trace works without it
            yield Pool(model.lay_out(open_dataset(limited, model.data, use)))


def own_sets(model: Model) -> Iterator[tuple[Use, DatasetConfig]]:
    """The run's sets with sources, except those of the hub: nothing is fetched unasked."""
    for use in USES:
        for config in model.data.sets(use):
            if not config.text and not (config.pairs or "").startswith(HUB):
                yield use, config


def emptied(encoded: ExampleSet, index: int) -> Others | None:
    """The source without its content; None if it has none."""
    source = encoded.source([index])
    if source.features is None:
        if encoded.source_lengths[index] <= 1:
            return None
        tokens, lengths = pad([[encoded.tokenizer.eos_id]], encoded.tokenizer.pad_id)
        return Others(Source(tokens, lengths), "an empty source")
    still = source.features.mean(1, keepdim=True).expand_as(source.features).contiguous()
    if torch.allclose(still, source.features):
        return None
    source.features = still
    return Others(source, "a still source: its own mean frame throughout")
