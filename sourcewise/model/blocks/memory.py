"""What the decoder reads while it generates: the memory of its sources, the cache of its own past."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from sourcewise.model.blocks.attention import MASKED
from sourcewise.model.blocks.packing import Packing

FIRST_ROOM = 32  # tokens a cache has room for at first
# On a CPU it looks at a multiple of slots: a product of a new shape costs more than a few idle ones.
SLOTS = 8


@dataclass
class TransformerMemory:
    """Encoder output, its mask, and each decoder layer's cross-attention keys and values."""

    states: Tensor  # (batch, slots, d_model)
    mask: Tensor  # (batch, slots) bool
    keys_values: list[tuple[Tensor, Tensor]]  # per decoder layer (batch, heads, slots, d_kv) twice
    bias: Tensor | None = field(init=False)  # (batch, 1, 1, slots); None where nothing is padded

    def __post_init__(self) -> None:
        self.bias = padding_bias(self.mask)

    @property
    def batch(self) -> int:
        """How many sources."""
        return len(self.states)

    def select(self, rows: Tensor) -> TransformerMemory:
        """The memory of these sources, cut to their longest."""
        mask = self.mask[rows]
        width = int(mask.any(0).nonzero().max()) + 1 if mask.numel() else 0
        return TransformerMemory(
            self.states[rows, :width],
            mask[:, :width],
            [(k[rows, :, :width], v[rows, :, :width]) for k, v in self.keys_values],
        )

    def join(self, other: TransformerMemory) -> TransformerMemory:
        """These sources and those of another memory."""
        width = max(self.mask.shape[1], other.mask.shape[1])

        def both(mine: Tensor, theirs: Tensor, dim: int) -> Tensor:
            return torch.cat([_widened(t, dim, width) for t in (mine, theirs)])

        return TransformerMemory(
            both(self.states, other.states, 1),
            both(self.mask, other.mask, 1),
            [
                (both(k, other_k, 2), both(v, other_v, 2))
                for (k, v), (other_k, other_v) in zip(self.keys_values, other.keys_values, strict=True)
            ],
        )


@dataclass
class PackedMemory:
    """A memory for learning: encoder output and each decoder layer's keys and values, sources one after another.

    What knows nothing of that sees a `TransformerMemory`: states, and keys and values of a layer, are padded when
    they are asked for.
    """

    rows: Tensor  # (slots of all sources, d_model)
    packing: Packing
    heads: Sequence[Tensor]  # per decoder layer (keys' and values' heads, rows and some more, d_kv)
    bias: Tensor | None = field(init=False)  # (batch, 1, 1, slots); None where nothing is padded

    def __post_init__(self) -> None:
        self.bias = padding_bias(self.mask)

    @property
    def mask(self) -> Tensor:
        """(batch, slots) bool."""
        return self.packing.mask

    @property
    def batch(self) -> int:
        """How many sources."""
        return len(self.mask)

    @property
    def states(self) -> Tensor:
        """(batch, slots, d_model)."""
        return self.packing.unpack(self.rows)

    @property
    def keys_values(self) -> _PaddedHeads:
        """Per decoder layer (batch, heads, slots, d_kv) twice."""
        return _PaddedHeads(self)


class _PaddedHeads:
    def __init__(self, memory: PackedMemory) -> None:
        self.memory = memory

    def __getitem__(self, layer: int) -> tuple[Tensor, Tensor]:
        rows = self.memory.heads[layer][:, : self.memory.packing.rows].transpose(0, 1)
        keys, values = self.memory.packing.unpack(rows).transpose(1, 2).chunk(2, dim=1)
        return keys, values


def _widened(tensor: Tensor, dim: int, width: int) -> Tensor:
    """With zeros at the end of an axis."""
    if tensor.shape[dim] == width:
        return tensor
    return F.pad(tensor, (0, 0) * (tensor.ndim - 1 - dim) + (0, width - tensor.shape[dim]))


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
        self.slots = SLOTS if like.device.type == "cpu" else 1
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
        shown = min(-(-taken // self.slots) * self.slots, self.room)
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

    def extend(self, layer: int, key: Tensor, value: Tensor, slots: int) -> tuple[Tensor, Tensor]:
        """Write (sources, heads, hypotheses × time, d_kv) after what is there; the layer's first `slots` of both."""
        end = self.used + key.shape[2]
        keys, values = self.blocks[layer]
        keys[:, :, self.used : end] = key
        values[:, :, self.used : end] = value
        return keys[:, :, :slots], values[:, :, :slots]

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


def padding_bias(mask: Tensor) -> Tensor | None:
    """(batch, slots) mask → (batch, 1, 1, slots) added to scores; None where nothing is padded."""
    if bool(mask.all()):
        return None
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, MASKED)[:, None, None]
