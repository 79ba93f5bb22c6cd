"""Other sources for comparison, so that the source bits of each token of an output can be measured.

In order: sources that the caller names; other sources of the same set; the run's own set. Where none is available, or
none differs, an emptied source is used, which says less, since no network was trained on such a source.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import torch

from sourcewise.config import DatasetConfig
from sourcewise.data.batches import Source, pad
from sourcewise.data.encoding import ExampleSet
from sourcewise.data.open import USES, Use, open_dataset
from sourcewise.data.readers.pairs import HUB
from sourcewise.errors import RequestError
from sourcewise.generation.model import Model
from sourcewise.model.protocol import Network

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


def find_others(model: Model, encoded: ExampleSet, index: int, against: ExampleSet | None = None) -> Others | None:
    """Other sources for the output of `encoded[index]`; None if no source differs.

    From a set, the examples of nearest length whose sources differ are taken.
    """
    for pool in _pools(model, encoded, index, against):
        rows = _nearest(encoded, index, pool)
        if rows:
            count = f"{len(rows)} other sources" if len(rows) > 1 else "another source"
            name = "those given" if pool.dataset.name == "sources" else PurePath(pool.dataset.name).name
            return Others(pool.source(rows), f"{count} of {name}")
    return _emptied(encoded, index)


def _pools(model: Model, encoded: ExampleSet, index: int, against: ExampleSet | None) -> Iterator[ExampleSet]:
    if against is not None:
        yield against
        return
    yield encoded
    text = encoded.dataset[index].source

    def fits(own: tuple[Use, DatasetConfig]) -> int:
        """The length of the task prefix that the source begins with, less is better."""
        return -len(own[1].prefix) if text.startswith(own[1].prefix) else 1

    for use, config in sorted(own_sets(model), key=fits):
        limited = config.model_copy(update={"limit": min(config.limit or SEARCHED, SEARCHED)})
        with contextlib.suppress(RequestError):  # the data has been moved: a trace works without it
            yield model.lay_out(open_dataset(limited, model.data, use))


def own_sets(model: Model) -> Iterator[tuple[Use, DatasetConfig]]:
    """The run's sets with sources, except those of the hub: nothing is fetched unasked."""
    for use in USES:
        for config in model.data.sets(use):
            if not config.text and not (config.pairs or "").startswith(HUB):
                yield use, config


def _nearest(encoded: ExampleSet, index: int, pool: ExampleSet) -> list[int]:
    """Indices of the pool, nearest source length first."""
    own, found = encoded.read(index), []
    for i in np.argsort(abs(pool.source_lengths - encoded.source_lengths[index]), kind="stable").tolist():
        if not np.array_equal(own, pool.read(i)):
            found.append(i)
        if len(found) == MOST:
            break
    return found


def _emptied(encoded: ExampleSet, index: int) -> Others | None:
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
