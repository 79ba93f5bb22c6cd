"""Examples of different lengths one after another, without padding between them.

A batch is padded so that it is a rectangle; only attention needs to know where its examples begin. Where all of a block
can be given rows one after another (`native/training/attention_part.py`), the padding is left out of everything.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

PIECE = 384  # rows that go through a part of a block together, in whole examples
SIDE = 32  # a piece has room for a multiple of these rows


class Packing:
    """Where the examples of a batch begin when they lie one after another."""

    def __init__(self, mask: Tensor) -> None:
        """mask (batch, time) bool, true where an example is: in one stretch, which may begin anywhere."""
        lengths = mask.sum(1)
        ends = lengths.cumsum(0)
        self.mask = mask
        self.starts = torch.cat((ends.new_zeros(1), ends))  # (batch + 1,) int64
        self.rows, self.longest = int(ends[-1]), int(lengths.max())
        self.lengths: np.ndarray[Any, Any] = lengths.numpy()

    @functools.cached_property
    def places(self) -> Tensor:
        """Of each row its place in the padded batch, (rows,)."""
        return self.mask.flatten().nonzero().squeeze(1)

    @functools.cached_property
    def bounds(self) -> Tensor:
        """The examples at which pieces begin, and the end: (pieces + 1,) int64."""
        found, rows = [0], 0
        for i, length in enumerate(self.lengths.tolist()):
            if rows and rows + length > PIECE:
                found.append(i)
                rows = 0
            rows += length
        return torch.tensor([*found, len(self.lengths)])

    @functools.cached_property
    def room(self) -> int:
        """Rows of all pieces, each up to a multiple of `SIDE`."""
        rows = self.starts[self.bounds].diff()
        return int(((rows + SIDE - 1) // SIDE * SIDE).sum())

    def pack(self, x: Tensor) -> Tensor:
        """(batch, time, …) → (rows, …)."""
        out: Tensor = _Pack.apply(x, self)
        return out

    def unpack(self, rows: Tensor) -> Tensor:
        """(rows, …) → (batch, time, …), zero where there is padding."""
        out: Tensor = _Unpack.apply(rows, self)
        return out

    def gather(self, x: Tensor) -> Tensor:
        """`pack` without a gradient."""
        flat = x.flatten(0, 1)
        return flat if self.rows == len(flat) else flat.index_select(0, self.places)

    def spread(self, rows: Tensor) -> Tensor:
        """`unpack` without a gradient."""
        shape = (*self.mask.shape, *rows.shape[1:])
        if self.rows == self.mask.numel():
            return rows.reshape(shape)
        out = rows.new_zeros(self.mask.numel(), *rows.shape[1:])
        return out.index_copy_(0, self.places, rows).view(shape)


class _Pack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return packing.gather(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.packing.spread(grads[0]), None


class _Unpack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return packing.spread(rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.packing.gather(grads[0]), None
