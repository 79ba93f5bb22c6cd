"""What the decoder reads while it generates: the memory of its sources, the cache of its own past."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from sourcewise.model.attention import MASKED

FIRST_ROOM = 64  # tokens a cache has room for at first
SLOTS = (
    8  # on a CPU the slots that are looked at are a multiple: a product of a new shape costs more than a few idle ones
)


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


class KeyValueCache:
    """Keys and values of the decoder's self-attention, all layers in one block, written in place.

    Hypotheses of a source lie side by side in the block's slots and share them: each knows its ancestors' slots, and a
    bias bars the others'. So choosing among hypotheses moves no keys, only small integers; the block is copied when
    sources leave or room runs out. It doubles when it is full: room for `steps` from the start would be many times what
    most outputs need.
    """

    def __init__(
        self, shape: tuple[int, ...], steps: int, dtype: torch.dtype, positions: Callable[[int], Tensor]
    ) -> None:
        """shape (layers, 2, sources, heads, d_kv); positions: room → (heads, room, room) bias, the future barred."""
        self.positions, self.steps = positions, steps
        self.bias = positions(min(steps, FIRST_ROOM))
        device = self.bias.device
        self.block = torch.zeros((*shape[:4], self.bias.shape[1], shape[4]), dtype=dtype, device=device)
        self.length = self.used = 0  # tokens a hypothesis has, slots taken
        self.slots = SLOTS if device.type == "cpu" else 1
        self.ancestors: Tensor | None = None  # (sources, hypotheses, length) slots; None while there is one a source

    def next_bias(self, hypotheses: int, time: int) -> Tensor:
        """Bias of the next `time` tokens of each hypothesis, and room for them.

        (heads, time, slots), or (sources, heads, hypotheses × time, slots) where a source has several hypotheses.
        """
        end, taken = self.length + time, self.used + hypotheses * time
        if end > self.bias.shape[1]:
            self.bias = self.positions(max(end, min(2 * self.bias.shape[1], self.steps)))
        shown = min(-(-taken // self.slots) * self.slots, self._make_room(taken))
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
        self.block[layer, 0, :, :, self.used : end] = key
        self.block[layer, 1, :, :, self.used : end] = value
        return self.block[layer, 0, :, :, :slots], self.block[layer, 1, :, :, :slots]

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
        if len(sources) != self.block.shape[2] or not torch.equal(sources, torch.arange(len(sources)).to(sources)):
            self._copy(self.block[:, :, :, :, : self.used].index_select(2, sources), self.block.shape[4])

    def _ancestors(self, hypotheses: int) -> Tensor:
        if self.ancestors is not None:
            return self.ancestors
        return torch.arange(self.length, device=self.block.device).expand(self.block.shape[2], hypotheses, -1)

    def _make_room(self, slots: int) -> int:
        room = self.block.shape[4]
        if slots > room:
            self._copy(self.block[:, :, :, :, : self.used], max(slots, 2 * room))
        return self.block.shape[4]

    def _copy(self, filled: Tensor, room: int) -> None:
        self.block = self.block.new_zeros((*filled.shape[:4], room, filled.shape[5]))
        self.block[:, :, :, :, : self.used] = filled


def padding_bias(mask: Tensor) -> Tensor | None:
    """(batch, slots) mask → (batch, 1, 1, slots) added to scores; None where nothing is padded."""
    if bool(mask.all()):
        return None
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, MASKED)[:, None, None]
