"""The decoder's own past while it generates: keys and values of its self-attention."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from sourcewise.model.attention import MASKED
from sourcewise.model.blocks.sublayers import Extend

FIRST_ROOM = 32  # tokens a cache has room for at first
SLOTS = 8  # a multiple of these is looked at: a product of a new shape costs more than a few idle slots


class KeyValueCache:
    """Keys and values of the decoder's self-attention, a block a layer for each, written in place.

    Hypotheses of a source lie side by side in a block's slots and share them: each knows its ancestors' slots, and a
    bias bars the others'. So choosing among hypotheses moves no keys, only small integers; blocks are copied when
    sources leave or room runs out. They double when they are full: room for `steps` from the start would be many times
    what most outputs need.
    """

    def __init__(
        self, layers: int, shape: tuple[int, int, int], steps: int, like: Tensor, positions: Callable[[int], Tensor]
    ) -> None:
        """shape (sources, heads, d_kv); positions: room → (heads, room, room) bias, the future barred."""
        self.positions, self.steps = positions, steps
        self.bias = positions(min(steps, FIRST_ROOM))
        sources, heads, d_kv = shape
        room = (sources, heads, self.bias.shape[1], d_kv)
        self.blocks = [(like.new_empty(room), like.new_empty(room)) for _ in range(layers)]
        self.length = self.used = 0  # tokens a hypothesis has, slots taken
        self.shown = 0  # slots that are looked at for the next tokens
        self.ancestors: Tensor | None = None  # (sources, hypotheses, length) slots; None while there is one a source

    @property
    def sources(self) -> int:
        """How many sources it serves."""
        return len(self.blocks[0][0])

    @property
    def room(self) -> int:
        """How many slots the blocks have."""
        return self.blocks[0][0].shape[2]

    def next_bias(self, hypotheses: int, time: int) -> Tensor:
        """Bias of the next `time` tokens of each hypothesis, and room for them.

        (heads, time, slots), or (sources, heads, hypotheses × time, slots) where a source has several hypotheses.
        """
        end, taken = self.length + time, self.used + hypotheses * time
        if end > self.bias.shape[1]:
            self.bias = self.positions(max(end, min(2 * self.bias.shape[1], self.steps)))
        if taken > self.room:
            self._make_room(max(taken, 2 * self.room))
        self.shown = shown = min(-(-taken // SLOTS) * SLOTS, self.room)
        for keys, values in self.blocks:  # weighed with 0: they may hold anything but NaN
            keys[:, :, taken:shown] = 0
            values[:, :, taken:shown] = 0
        rows = self.bias[:, self.length : end]
        if hypotheses == 1 and self.ancestors is None:
            free = shown - rows.shape[2]
            return rows[:, :, :shown] if free <= 0 else F.pad(rows, (0, free), value=MASKED)
        new = torch.arange(self.used, taken, device=rows.device).view(hypotheses, time)
        before = self._ancestors(hypotheses)
        self.ancestors = torch.cat((before, new.expand(len(before), -1, -1)), dim=2)
        shape = (len(before), len(rows), hypotheses, time)
        bias = torch.full((*shape, shown), MASKED, device=rows.device)
        places = self.ancestors[:, None, :, None].expand(*shape, end)
        bias.scatter_(4, places, rows[None, :, None, :, :end].expand(*shape, end))
        return bias.flatten(2, 3)

    def layer(self, place: int) -> Extend:
        """What takes the new keys and values of a layer and gives all that are to be looked at."""
        return partial(self._extend, place)

    def _extend(self, place: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write (sources, heads, hypotheses × time, d_kv) after what is there; the layer's first `shown` slots."""
        end = self.used + key.shape[2]
        keys, values = self.blocks[place]
        keys[:, :, self.used : end] = key
        values[:, :, self.used : end] = value
        return keys[:, :, : self.shown], values[:, :, : self.shown]

    def advance(self, hypotheses: int, time: int) -> None:
        """All layers have written the next `time` tokens."""
        self.length, self.used = self.length + time, self.used + hypotheses * time

    def select(self, rows: Tensor) -> None:
        """Keep these hypotheses (sources, hypotheses), in this order; those of a row are of one source."""
        hypotheses = 1 if self.ancestors is None else self.ancestors.shape[1]
        sources = rows[:, 0] // hypotheses
        if self.ancestors is not None or rows.shape[1] > 1:
            ancestors = self._ancestors(hypotheses)[sources]
            picked = (rows % hypotheses)[..., None].expand(-1, -1, self.length)
            self.ancestors = ancestors.gather(1, picked)
        if rows.shape[1] * FIRST_ROOM > self.room:
            self._make_room(rows.shape[1] * FIRST_ROOM)
        if len(sources) != self.sources or not torch.equal(sources, torch.arange(len(sources)).to(sources)):
            self.blocks = [
                (keys.index_select(0, sources), values.index_select(0, sources)) for keys, values in self.blocks
            ]

    def join(self, other: KeyValueCache) -> None:
        """Take in the hypotheses of another cache of the same length."""
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

    def _ancestors(self, hypotheses: int) -> Tensor:
        if self.ancestors is not None:
            return self.ancestors
        return torch.arange(self.length, device=self.bias.device).expand(self.sources, hypotheses, -1)

    def _make_room(self, slots: int) -> None:
        def larger(block: Tensor) -> Tensor:
            out = block.new_empty((*block.shape[:2], slots, block.shape[3]))
            out[:, :, : self.used] = block[:, :, : self.used]
            return out

        self.blocks = [(larger(keys), larger(values)) for keys, values in self.blocks]
