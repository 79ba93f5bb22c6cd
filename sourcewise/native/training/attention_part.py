"""Attention beside its residual in a bf16 training step, compiled for CPUs with tiles (AMX), examples without padding.

`takes` says whether an attention's weights can be given to it. The C++ is beside this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import byref, c_float, c_uint32, c_uint64
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from sourcewise.native.structures import structures
from sourcewise.native.training.kernels import LANES, at, share
from sourcewise.native.training.tiles import SIDE, run, suits, tiled

if TYPE_CHECKING:
    from sourcewise.data.layout import Layout

CODE = Path(__file__).with_name("attention_part.cpp")
FEW = 128  # rows below which bringing weights into tiles is most of the work
PIECE = 384  # rows of a piece, in whole examples
BEYOND = 16  # rows that may be read after the last of a head
MOST = 512  # positions of an example: with more, products of larger pieces are faster
C = structures(CODE)
_run = partial(run, CODE, room="an attention's weights in tiles")


class Pieces:
    """Packed examples in pieces, which go through a part of a block together."""

    def __init__(self, layout: Layout) -> None:
        self.lengths, self.rows, self.longest = layout.lengths, layout.rows, layout.longest
        self.starts = torch.from_numpy(layout.starts)
        bounds, rows = [0], 0
        for i, length in enumerate(layout.lengths.tolist()):
            if rows and rows + length > PIECE:
                bounds.append(i)
                rows = 0
            rows += length
        self.bounds = torch.tensor([*bounds, len(layout)])  # the examples at which pieces begin, and the end
        sizes = self.starts[self.bounds].diff()
        self.room = int(((sizes + SIDE - 1) // SIDE * SIDE).sum())  # rows of all pieces, each up to a multiple of SIDE


_known: WeakKeyDictionary[Layout, Pieces] = WeakKeyDictionary()


def pieces(layout: Layout) -> Pieces:
    """Those of a layout, made once."""
    found = _known.get(layout)
    if found is None:
        found = _known[layout] = Pieces(layout)
    return found


@dataclass(frozen=True, slots=True)
class Settings:
    """What an attention is besides its tensors: whose examples, and what is dropped of weights and of the whole."""

    own: Pieces
    source: Pieces  # what is read: the examples' own, or a memory
    d_kv: int
    eps: float
    ps: tuple[float, float]
    seeds: tuple[int, int]


def takes(x: Tensor, d_kv: int, longest: int) -> bool:
    """Whether rows like those of x (..., d_model), in examples so long, can be given to the functions below."""
    return (
        torch.is_grad_enabled()
        and suits(x, FEW)
        and d_kv % SIDE == 0
        and 0 < longest <= MOST
        and tiled(CODE) is not None
    )


class _Attention(torch.autograd.Function):
    """x + dropout(read @ out.T) of x (rows, d_model), where queries, and without `keys_values` keys and values, are
    rms_norm(x) @ into.T, and each example reads its own, or its source's, by dropout(softmax(queries keysᵀ + bias)).

    bias (heads, time, time) float32; keys_values as `to_heads` gives them; out (d_model, heads × d_kv).
    Raises MemoryError.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor | None,
        into: Tensor,
        out: Tensor,
        bias: Tensor | None,
        keys_values: Tensor | None,
        settings: Settings,
    ) -> Tensor:
        x, into, out = x.contiguous(), into.contiguous(), out.contiguous()
        own, source, inner = settings.own, settings.source, out.shape[1]
        projected = x.new_empty(len(into) // settings.d_kv, len(x) + BEYOND, settings.d_kv)
        across = -(-own.lengths // LANES) * LANES
        weights = torch.empty(inner // settings.d_kv * int((source.lengths * across).sum()))
        read, y = x.new_empty(own.room * inner), torch.empty_like(x)
        ctx.settings = settings
        ctx.save_for_backward(x, scale, into, out, _turned(bias), keys_values, projected, weights, read)
        _run("attention_part", byref(_part(settings, *ctx.to_save)), y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, into, out, table, keys_values, *_ = saved = ctx.saved_tensors
        grad = grads[0].contiguous()
        dx, dinto, dout = (torch.empty_like(each) for each in (x, into, out))
        dscale = None if scale is None else torch.zeros(scale.shape)
        dtable = None if table is None else torch.zeros_like(table)
        dkeys_values = None if keys_values is None else torch.empty_like(keys_values)
        found = dx, dscale, dinto, dout, dtable, dkeys_values
        _run("attention_part_backward", byref(_part(ctx.settings, *saved)), grad, *found)
        dbias = None if dtable is None else dtable[:, :, : table.shape[1]].transpose(1, 2)
        return dx, None if dscale is None else dscale.to(x.dtype), dinto, dout, dbias, dkeys_values, None


class _ToHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, d_kv: int, *weights: Tensor) -> tuple[Tensor, ...]:
        states, ctx.d_kv = states.contiguous(), d_kv
        found = []
        for weight in weights:
            heads = states.new_empty(len(weight) // d_kv, len(states) + BEYOND, d_kv)
            _run("to_heads", states, weight, *states.shape, len(weight), d_kv, heads)
            found.append(heads)
        ctx.save_for_backward(states, *weights)
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        states, *weights = ctx.saved_tensors
        dstates = torch.zeros_like(states)
        dweights: list[Tensor | None] = []
        for weight, grad in zip(weights, grads, strict=True):
            if grad is None:
                dweights.append(None)
                continue
            dweights.append(torch.empty_like(weight))
            sizes = *states.shape, len(weight), ctx.d_kv
            _run("to_heads_backward", grad.contiguous(), states, weight, *sizes, dstates, dweights[-1])
        return dstates, None, *dweights


attention_part = _Attention.apply


def to_heads(states: Tensor, weights: Sequence[Tensor], d_kv: int) -> tuple[Tensor, ...]:
    """Of each layer's weight states (rows, d_model) @ weight.T → (outputs / d_kv, rows and some more, d_kv).

    Raises MemoryError.
    """
    return _ToHeads.apply(states, d_kv, *(weight.contiguous() for weight in weights))


def _turned(bias: Tensor | None) -> Tensor | None:
    """(heads, queries, keys) → (heads, keys, queries up to a multiple of 16)."""
    if bias is None:
        return None
    return F.pad(bias.transpose(1, 2), (0, -bias.shape[1] % LANES)).contiguous()


def _part(
    settings: Settings,
    x: Tensor,
    scale: Tensor | None,
    into: Tensor,
    out: Tensor,
    table: Tensor | None,
    keys_values: Tensor | None,
    projected: Tensor,
    weights: Tensor,
    read: Tensor,
) -> Any:
    own, source = settings.own, settings.source
    longest = source.longest if table is None else table.shape[1]
    sizes = (len(own.bounds) - 1, own.rows, source.rows, x.shape[1], out.shape[1] // settings.d_kv, settings.d_kv)
    places = (own.bounds, own.starts, source.starts, x, scale, into, out, table, projected, keys_values, weights, read)
    dropped, kept = zip(*(share(p) for p in settings.ps), strict=True)
    return C.Part(
        *sizes,
        *(own.longest, longest, 0 if table is None else table.shape[2]),
        *map(at, places),
        (c_uint64 * 2)(*settings.seeds),
        (c_uint32 * 2)(*dropped),
        (c_float * 2)(*kept),
        settings.eps,
    )
