"""Layout of a batch's examples in a tensor: padded to a rectangle, or packed one after another.

Lengths are on the host, so that reading them never waits for a device; tensors for a device are made once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

Ints = np.ndarray[Any, np.dtype[np.int64]]


class Layout:
    """Lengths of examples, and the rectangle (batch, width) of the padded layout.

    The positions of an example are contiguous in its row; `begins` has the first position of each, 0 if padding is on
    the right.
    """

    def __init__(
        self, lengths: Sequence[int] | Ints, width: int, begins: Ints | None = None, *, packed: bool = False
    ) -> None:
        self.lengths: Ints = np.asarray(lengths, dtype=np.int64)
        self.width, self.packed = width, packed
        self.begins = np.zeros_like(self.lengths) if begins is None else begins
        self._on: dict[torch.device, DeviceLayout] = {}

    @classmethod
    def whole(cls, batch: int, width: int) -> Layout:
        """A layout without padding."""
        return cls(np.full(batch, width, dtype=np.int64), width)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def rows(self) -> int:
        """Number of real positions."""
        return int(self.lengths.sum())

    @property
    def longest(self) -> int:
        """Length of the longest example."""
        return int(self.lengths.max(initial=0))

    @property
    def full(self) -> bool:
        """Whether the rectangle has no padding."""
        return self.rows == len(self) * self.width

    @cached_property
    def mask(self) -> np.ndarray:
        """(batch, width) bool, false at padding."""
        places = np.arange(self.width)
        ends = self.begins + self.lengths
        return (places >= self.begins[:, None]) & (places < ends[:, None])

    @cached_property
    def starts(self) -> Ints:
        """Start of each example in the packed layout, and the end: (batch + 1,)."""
        return np.concatenate(([0], np.cumsum(self.lengths))).astype(np.int64)

    def on(self, device: torch.device | str) -> DeviceLayout:
        """The tensors of this layout on a device."""
        device = torch.device(device)
        if device not in self._on:
            self._on[device] = DeviceLayout(self, device)
        return self._on[device]

    def compact(self) -> Layout:
        """The same examples, packed."""
        return self if self.packed else Layout(self.lengths, self.width, self.begins, packed=True)

    def rectangle(self) -> Layout:
        """The same examples, padded."""
        return Layout(self.lengths, self.width, self.begins) if self.packed else self

    def cut(self, longest: int) -> Layout:
        """A layout with at most `longest` positions of each example."""
        return Layout(np.minimum(self.lengths, longest), self.width, self.begins, packed=self.packed)

    def select(self, rows: Ints) -> tuple[Layout, slice]:
        """The padded layout of these examples (indices), in this order, and the remaining columns of the rectangle."""
        begins, ends = self.begins[rows], self.begins[rows] + self.lengths[rows]
        first, last = int(begins.min(initial=self.width)), int(ends.max(initial=0))
        return Layout(self.lengths[rows], max(0, last - first), begins - first), slice(first, last)

    def widened(self, width: int, *, on_the_left: bool = False) -> Layout:
        """The same padded examples in a wider rectangle."""
        before = width - self.width if on_the_left else 0
        return Layout(self.lengths, width, self.begins + before)

    def join(self, other: Layout, *, on_the_left: bool = False) -> Layout:
        """The padded layout of these examples and others, in the wider of the two rectangles."""
        width = max(self.width, other.width)
        both = [each.widened(width, on_the_left=on_the_left) for each in (self, other)]
        lengths, begins = (np.concatenate([getattr(each, name) for each in both]) for name in ("lengths", "begins"))
        return Layout(lengths, width, begins)

    def pack(self, x: Tensor) -> Tensor:
        """x (batch, width, …) in this layout: unchanged, or (rows, …) if packed."""
        return x.flatten(0, 1).index_select(0, self.on(x.device).places) if self.packed else x

    def pad(self, x: Tensor) -> Tensor:
        """x in this layout → (batch, width, …), with zeros at padding."""
        if not self.packed:
            return x
        shape = (len(self), self.width, *x.shape[1:])
        flat = x.new_zeros(shape[0] * shape[1], *x.shape[1:])
        return flat.index_copy(0, self.on(x.device).places, x).view(shape)


class DeviceLayout:
    """Tensors of a layout on a device, each made on first use without waiting for the device."""

    def __init__(self, layout: Layout, device: torch.device) -> None:
        self.layout, self.device = layout, device

    def _there(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device, non_blocking=True)

    @cached_property
    def mask(self) -> Tensor:
        """(batch, width) bool, false at padding."""
        return self._there(self.layout.mask)

    @cached_property
    def places(self) -> Tensor:
        """Index of each real position in the flattened rectangle: (rows,) int64."""
        return self._there(np.flatnonzero(self.layout.mask))

    @cached_property
    def positions(self) -> Tensor:
        """(batch, width) int64: position within the example; at padding, that of the nearest real position."""
        places = np.arange(self.layout.width) - self.layout.begins[:, None]
        return self._there(np.clip(places, 0, np.maximum(self.layout.lengths[:, None] - 1, 0)))
