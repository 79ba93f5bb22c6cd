"""The cache of a decoder in generation: keys and values of its self-attention."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from sourcewise.model.attention import MASKED
from sourcewise.model.blocks.sublayers import Extend

FIRST_ROOM = 32  # initial capacity in tokens
SLOTS = 8  # attention covers a multiple of these: a product of a new shape costs more than a few idle slots


class KeyValueCache:
    """Keys and values of the decoder's self-attention, one tensor each per layer, written in place.

    The hypotheses of a source share the slots of a tensor: each has the indices of its ancestors' slots, and a bias
    masks all others. So selecting hypotheses moves only small integers; tensors are copied when sources are removed or
    capacity runs out. The capacity doubles when it is used up, since that of `steps` tokens would exceed most outputs
    many times.
    """

    def __init__(
        self, layers: int, shape: tuple[int, int, int], steps: int, like: Tensor, positions: Callable[[int], Tensor]
    ) -> None:
        """shape (sources, heads, d_kv); positions: capacity → (heads, capacity, capacity) bias with a causal mask."""
        self.positions, self.steps = positions, steps
        self.bias = positions(min(steps, FIRST_ROOM))
        sources, heads, d_kv = shape
        room = (sources, heads, self.bias.shape[1], d_kv)
        self.blocks = [(like.new_empty(room), like.new_empty(room)) for _ in range(layers)]
        self.length = self.used = 0  # tokens per hypothesis, used slots
        self.shown = 0  # slots that attention covers for the next tokens
        self.ancestors: Tensor | None = None  # (sources, hypotheses, length) slots; None while there is one per source

    @property
    def sources(self) -> int:
        """Number of sources."""
        return len(self.blocks[0][0])

    @property
    def room(self) -> int:
        """Capacity: number of slots."""
        return self.blocks[0][0].shape[2]

    def next_bias(self, hypotheses: int, time: int) -> Tensor:
        """Make room for the next `time` tokens of each hypothesis, and return their bias.

        (heads, time, slots), or (sources, heads, hypotheses × time, slots) if a source has several hypotheses.
        """
        end, taken = self.length + time, self.used + hypotheses * time
        self.reserve(end, taken)
        self.shown = shown = min(-(-taken // SLOTS) * SLOTS, self.room)
        self.clear(taken, shown)
        rows = self.bias[:, self.length : end]
        if hypotheses == 1 and self.ancestors is None:
            free = shown - rows.shape[2]
            return rows[:, :, :shown] if free <= 0 else F.pad(rows, (0, free), value=MASKED)
        new = torch.arange(self.used, taken, device=rows.device).view(hypotheses, time)
        before = self.ancestors_of(hypotheses)
        self.ancestors = torch.cat((before, new.expand(len(before), -1, -1)), dim=2)
        shape = (len(before), len(rows), hypotheses, time)
        bias = torch.full((*shape, shown), MASKED, device=rows.device)
        places = self.ancestors[:, None, :, None].expand(*shape, end)
        bias.scatter_(4, places, rows[None, :, None, :, :end].expand(*shape, end))
        return bias.flatten(2, 3)

    def reserve(self, end: int, slots: int) -> None:
        """Make room for hypotheses of `end` tokens in so many slots."""
        if end > self.bias.shape[1]:
            self.bias = self.positions(max(end, min(2 * self.bias.shape[1], self.steps)))
        if slots > self.room:
            self._make_room(max(slots, 2 * self.room))

    def clear(self, start: int, end: int) -> None:
        """Fill slots that are not written yet, and have weight 0: any value but NaN will do."""
        for keys, values in self.blocks:
            keys[:, :, start:end] = 0
            values[:, :, start:end] = 0

    def layer(self, place: int) -> Extend:
        """A function that adds new keys and values of a layer and returns all that attention covers."""
        return partial(self._extend, place)

    def _extend(self, place: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append (sources, heads, hypotheses × time, d_kv); returns the layer's first `shown` slots."""
        end = self.used + key.shape[2]
        keys, values = self.blocks[place]
        keys[:, :, self.used : end] = key
        values[:, :, self.used : end] = value
        return keys[:, :, : self.shown], values[:, :, : self.shown]

    def advance(self, hypotheses: int, time: int) -> None:
        """Count the next `time` tokens, after all layers have written them."""
        self.length, self.used = self.length + time, self.used + hypotheses * time

    def select(self, rows: Tensor) -> None:
        """Keep these hypotheses (sources, hypotheses): a row holds those of a source, and sources keep their order."""
        hypotheses = 1 if self.ancestors is None else self.ancestors.shape[1]
        sources = rows[:, 0] // hypotheses
        if self.ancestors is not None or rows.shape[1] > 1:
            ancestors = self.ancestors_of(hypotheses)[sources]
            picked = (rows % hypotheses)[..., None].expand(-1, -1, self.length)
            self.ancestors = ancestors.gather(1, picked)
        if rows.shape[1] * FIRST_ROOM > self.room:
            self._make_room(rows.shape[1] * FIRST_ROOM)
        if len(sources) != self.sources:
            self.blocks = [
                (keys.index_select(0, sources), values.index_select(0, sources)) for keys, values in self.blocks
            ]

    def join(self, other: KeyValueCache) -> None:
        """Add the hypotheses of another cache of the same length."""
        room = max(self.room, other.room)
        for cache in (self, other):
            if cache.room < room:
                cache._make_room(room)
        pairs = zip(self.blocks, other.blocks, strict=True)
        self.blocks = [(torch.cat((k, more_k)), torch.cat((v, more_v))) for (k, v), (more_k, more_v) in pairs]
        if self.bias.shape[1] < other.bias.shape[1]:
            self.bias = other.bias
        if self.ancestors is not None and other.ancestors is not None:
            self.ancestors = torch.cat((self.ancestors, other.ancestors))

    def ancestors_of(self, hypotheses: int) -> Tensor:
        """(sources, hypotheses, length) slots of the tokens of each hypothesis."""
        if self.ancestors is not None:
            return self.ancestors
        return torch.arange(self.length, device=self.bias.device).expand(self.sources, hypotheses, -1)

    def _make_room(self, slots: int) -> None:
        def larger(block: Tensor) -> Tensor:
            out = block.new_empty((*block.shape[:2], slots, block.shape[3]))
            out[:, :, : self.used] = block[:, :, : self.used]
            return out

        self.blocks = [(larger(keys), larger(values)) for keys, values in self.blocks]
