"""A bridge for each stream of the features, such as rgb and pose: what two networks made is not mixed by one matrix."""

from __future__ import annotations

import itertools
from dataclasses import replace

from torch import Tensor, nn

from sourcewise.config import BridgeConfig
from sourcewise.data.examples import Dataset
from sourcewise.data.layout import Layout
from sourcewise.errors import RequestError
from sourcewise.model.inputs.bridges import Bridge


class PerStream(Bridge):
    """Bridges of one kind, each of the dimensions of its stream; a slot is the sum of theirs, normalised before it."""

    def __init__(self, kind: type[Bridge], config: BridgeConfig, dims: int, d_model: int, p: float) -> None:
        """Raises RequestError unless the widths of the streams are named and give `dims`."""
        super().__init__(config, dims, d_model, p)
        if len(config.streams) < 2 or sum(config.streams) != dims:
            told = f"{' + '.join(map(str, config.streams)) or 'no'} dims, but the features have {dims}"
            cure = "name two streams or more in the set, or the width of each in model.bridge.streams"
            raise RequestError(f"model.bridge.per_stream: {told}; {cure}")
        if kind.exact:
            problem = f"{config.kind} reads the features as they are and has streams of its own"
            raise RequestError(f"model.bridge.per_stream: {problem}; set it to false")
        self.of = nn.ModuleList(kind(config, width, d_model, p) for width in config.streams)

    @property
    def bridges(self) -> list[Bridge]:
        """The bridge of each stream."""
        return [each for each in self.of if isinstance(each, Bridge)]

    def slots(self, x: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """See Bridge."""
        parts = x.split(self.config.streams, dim=2)
        found = [bridge.slots(part, layout) for bridge, part in zip(self.bridges, parts, strict=True)]
        vectors = [bridge.norm(slots) for bridge, (slots, _) in zip(self.bridges, found, strict=True)]
        total = vectors[0]
        for each in vectors[1:]:
            total = total + each
        return total, found[0][1]

    def spans(self, features: Tensor) -> list[tuple[int, int]] | None:
        """See Bridge: those of each stream, which are the same."""
        return self.bridges[0].spans(features)

    def prepare(self, dataset: Dataset) -> None:
        """See Bridge: each takes what it needs from its own dimensions."""
        for bridge, start in zip(self.bridges, itertools.accumulate([0, *self.config.streams]), strict=False):
            stop = start + bridge.dims
            read = lambda i, a=start, b=stop: dataset.features(i)[:, a:b]  # noqa: E731
            bridge.prepare(replace(dataset, dims=bridge.dims, read=read))
