"""Several networks of one vocabulary as one, which gives the mean of their probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sourcewise.data.batches import Batch, Source
from sourcewise.errors import RequestError
from sourcewise.model.parts import ParameterInfo, Stacks
from sourcewise.model.protocol import PLAIN, Aims, LossParts, Network


@dataclass
class Memories:
    """The memory of each network, for the same sources."""

    parts: list[Any]

    @property
    def mask(self) -> Tensor:
        """That of the first network."""
        return self.parts[0].mask  # type: ignore[no-any-return]

    @property
    def states(self) -> Tensor | None:
        """The encoder's states of the first network, if it has some."""
        return getattr(self.parts[0], "states", None)

    @property
    def batch(self) -> int:
        """Number of sources."""
        return self.parts[0].batch  # type: ignore[no-any-return]

    def select(self, rows: Tensor) -> Memories:
        """See Memory."""
        return Memories([part.select(rows) for part in self.parts])

    def join(self, other: Memories) -> Memories:
        """See Memory."""
        return Memories([part.join(more) for part, more in zip(self.parts, other.parts, strict=True)])


@dataclass
class Caches:
    """The cache of each network."""

    parts: list[Any]

    def select(self, rows: Tensor) -> None:
        """See Cache."""
        for part in self.parts:
            part.select(rows)

    def join(self, other: Caches) -> None:
        """See Cache."""
        for part, more in zip(self.parts, other.parts, strict=True):
            part.join(more)


class Ensemble(nn.Module):
    """A Network whose next-token probabilities are the mean of several networks'; it is not trained.

    Ids, forced tokens and limits are those of the first. Raises RequestError for networks that do not go together.
    """

    def __init__(self, networks: Sequence[Network], names: Sequence[str]) -> None:
        super().__init__()
        first = networks[0]
        for network, name in zip(networks[1:], names[1:], strict=True):
            for what, own, other in (
                ("features of width (0: text)", first.dims, network.dims),
                ("output tokens", first.spoken, network.spoken),
                ("the start token", first.start_id, network.start_id),
                ("the ends of text", first.defaults.ends, network.defaults.ends),
            ):
                if own != other:
                    raise RequestError(f"{name}: cannot join {names[0]} in an ensemble: {what}: {other}, not {own}")
        self.networks: Any = nn.ModuleList(networks)  # type: ignore[arg-type]
        self.kind = f"an ensemble of {len(networks)}"
        self.start_id, self.eos_id, self.pad_id = first.start_id, first.eos_id, first.pad_id
        self.defaults, self.spoken, self.route = first.defaults, first.spoken, first.route
        self.vocabulary = min(network.vocabulary for network in networks)
        self.positions = min((n.positions for n in networks if n.positions is not None), default=None)
        self.joins = all(network.joins for network in networks)

    @property
    def dims(self) -> int:
        """See Network."""
        return self.networks[0].dims  # type: ignore[no-any-return]

    @property
    def device(self) -> torch.device:
        """See Network."""
        return self.networks[0].device  # type: ignore[no-any-return]

    @property
    def attends(self) -> bool:
        """See Network."""
        return all(network.attends for network in self.networks)

    @property
    def stacks(self) -> Stacks:
        """See Network: those of the first."""
        return self.networks[0].stacks  # type: ignore[no-any-return]

    @property
    def bridge(self) -> Any:
        """That of the first."""
        return getattr(self.networks[0], "bridge", None)

    def parts(self) -> Iterator[ParameterInfo]:
        """See Network."""
        for network in self.networks:
            yield from network.parts()

    def spans(self, features: Tensor, count: int | None) -> list[tuple[int, int]] | None:
        """The frames of each of `count` memory positions of the first; see Seq2Seq."""
        return self.networks[0].spans(features, count)  # type: ignore[no-any-return]

    def encode(self, source: Source) -> Memories:
        """See Network."""
        return Memories([network.encode(source) for network in self.networks])

    def new_cache(self, memory: Memories, beams: int, steps: int) -> Caches:
        """See Network."""
        pairs = zip(self.networks, memory.parts, strict=True)
        return Caches([network.new_cache(part, beams, steps) for network, part in pairs])

    def decode(self, tokens: Tensor, memory: Memories, cache: Caches | None = None) -> Tensor:
        """Tokens (memory.batch × beams, time) → ln of the mean probabilities (rows, time, vocabulary)."""
        caches = [None] * len(self.networks) if cache is None else cache.parts
        found = [
            network.decode(tokens, part, own).float().log_softmax(-1)
            for network, part, own in zip(self.networks, memory.parts, caches, strict=True)
        ]
        return torch.stack(found).logsumexp(0) - math.log(len(found))

    def cross_attention(self, tokens: Tensor, memory: Memories) -> Tensor | None:
        """(networks, batch, 1, time, width), averaged over layers and heads; None unless all have as many positions."""
        found = [
            network.cross_attention(tokens, part) for network, part in zip(self.networks, memory.parts, strict=True)
        ]
        means = [weights.mean((0, 2)) for weights in found if weights is not None]
        if len(means) < len(found) or len({mean.shape for mean in means}) > 1:
            return None
        return torch.stack(means)[:, :, None]

    def self_attention(self, source: Source, tokens: Tensor) -> dict[str, Tensor]:
        """None: each network has its own."""
        return {}

    def forward(self, batch: Batch, aims: Aims = PLAIN) -> LossParts:
        """Raises RequestError: an ensemble is not trained."""
        raise RequestError("an ensemble is for generation; train its models one by one")
