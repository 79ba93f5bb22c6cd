"""The memory of a Transformer: encoder outputs that the decoder attends to."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from sourcewise.data.layout import Layout
from sourcewise.model import attention

KeysValues = tuple[Tensor, Tensor]  # each (batch, heads, width, d_kv), or (heads, rows, d_kv) where packed


@dataclass
class Memory:
    """The encoder output, and keys and values of it for each decoder layer.

    Without `keys_values` each layer computes its own from `states` at every pass.
    """

    layout: Layout
    states: Tensor  # (batch, width, d_model), or (rows, d_model) where packed
    keys_values: list[KeysValues] = field(default_factory=list)
    on_the_right: bool = False  # sources end at the right edge, so that padding is added on the left
    masked: bool = False  # whether `barred` is known
    barred: Tensor | None = None  # see `bias`

    @property
    def batch(self) -> int:
        """Number of sources."""
        return len(self.layout)

    @property
    def mask(self) -> Tensor:
        """(batch, width) bool, false at padding."""
        return self.layout.on(self.states.device).mask

    @property
    def bias(self) -> Tensor | None:
        """Bias (batch, 1, 1, width) of the scores that masks padding; None without padding. Made once."""
        if not self.masked:
            self.barred = None if self.layout.packed else attention.padding_bias(self.layout, self.states.device)
            self.masked = True
        return self.barred

    def padded(self) -> Memory:
        """The same memory in a padded layout."""
        if not self.layout.packed:
            return self
        return Memory(self.layout.rectangle(), self.layout.pad(self.states))

    def select(self, rows: Tensor) -> Memory:
        """The memory of these sources, cut to the longest of them."""
        whole = self.padded()
        layout, columns = whole.layout.select(rows.cpu().numpy())
        keys_values = [(k[rows, :, columns], v[rows, :, columns]) for k, v in whole.keys_values]
        return Memory(layout, whole.states[rows, columns], keys_values, self.on_the_right)

    def join(self, other: Memory) -> Memory:
        """The memory of these sources and those of another memory."""
        mine, theirs = self.padded(), other.padded()
        layout = mine.layout.join(theirs.layout, on_the_left=self.on_the_right)

        def both(*tensors: Tensor) -> Tensor:
            """Both concatenated, padded along positions, the last axis but one, to the wider of the two."""
            free = [layout.width - t.shape[-2] for t in tensors]
            sides = [(0, 0, n, 0) if self.on_the_right else (0, 0, 0, n) for n in free]
            return torch.cat([F.pad(t, side) if any(side) else t for t, side in zip(tensors, sides, strict=True)])

        pairs = zip(mine.keys_values, theirs.keys_values, strict=True)
        keys_values = [(both(k, more_k), both(v, more_v)) for (k, v), (more_k, more_v) in pairs]
        return Memory(layout, both(mine.states, theirs.states), keys_values, self.on_the_right)
