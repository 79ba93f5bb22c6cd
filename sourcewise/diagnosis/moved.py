"""A trained network with the rows of its tables moved, beside the network as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import nn

from sourcewise.data.batches import IGNORED, Batch
from sourcewise.data.encoding import ExampleSet
from sourcewise.diagnosis.borrowing import borrowed
from sourcewise.model.protocol import Network, token_nats

MOST = 24  # examples
STEPS = (1, -1, 2, -2)  # rows
PLACES = re.compile(r"pos(ition)?s?(_emb|[._]|$)|wpe", re.IGNORECASE)
WORDS = re.compile(r"emb|shared|wte|lm_head|generator|output_projection", re.IGNORECASE)
Tables = list[nn.Parameter]


@dataclass(frozen=True)
class Moved:
    """A network of the protocol and a set; nothing is tried where its weights were not `trained`."""

    network: Network
    encoded: ExampleSet
    trained: bool

    about = "tables with their rows moved"
    learned = False

    @cached_property
    def batch(self) -> Batch:
        """Some of the shorter examples."""
        sizes = self.encoded.source_lengths + self.encoded.target_lengths
        return self.encoded.batch(np.argsort(sizes, kind="stable")[: max(2, len(sizes) // 2)][-MOST:])

    @cached_property
    def usual(self) -> float:
        """Nats of a target token as the network is."""
        with borrowed(self.network):
            return self._nats()

    @cached_property
    def best(self) -> tuple[str, int, float]:
        """The tables and the move that cost least, and nats of a token then."""
        with borrowed(self.network), torch.no_grad():
            return min(self._tried(), key=lambda each: each[2], default=("", 0, float("inf")))

    def _tried(self) -> Iterator[tuple[str, int, float]]:
        for name, tables in self.groups():
            for step in STEPS:
                for table in tables:
                    table.data = table.data.roll(step, 0)
                yield name, step, self._nats()
                for table in tables:
                    table.data = table.data.roll(-step, 0)

    def groups(self) -> Iterator[tuple[str, Tables]]:
        """Tables whose rows are moved together, in words."""
        assert isinstance(self.network, nn.Module)
        known = [(name, p) for name, p in self.network.named_parameters() if p.ndim == 2 and len(p) > 4]
        places = [(name, p) for name, p in known if PLACES.search(name)]
        words = [(name, p) for name, p in known if WORDS.search(name) and not PLACES.search(name)]
        for what, group in (("positions", places), ("embeddings", words)):
            if len(group) > 1:
                yield f"all {what} ({', '.join(_short(name) for name, _ in group)})", [p for _, p in group]
            for name, p in group:
                yield _short(name), [p]

    @torch.no_grad()
    def _nats(self) -> float:
        labels = self.batch.labels.to(self.network.device)
        nats = token_nats(self.network, self.network.encode(self.batch.source.to(self.network.device)), labels)
        real = labels != IGNORED
        return float(nats[real].sum()) / int(real.sum())


def _short(name: str) -> str:
    parts: Sequence[str] = [word for word in name.split(".") if word not in ("body", "model", "weight")]
    return ".".join(parts)
