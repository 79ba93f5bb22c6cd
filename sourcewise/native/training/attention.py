"""Attention of a bf16 training step on a CPU, compiled: forward and backward one pass a head, where heads lie.

`takes` says whether heads can be given to `attention`.
"""

from __future__ import annotations

import functools
from ctypes import CDLL, byref
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sourcewise.native.codes import ATTENTION, HERE
from sourcewise.native.structures import structures
from sourcewise.native.training.kernels import LANES, call, in_rows, share
from sourcewise.native.training.tiles import tiled

IN_TILES = Path(__file__).with_name("attention_tiles.cpp")
WIDTH = 32  # of a head: a multiple of it
MOST = 512  # positions: with more, torch's products are faster
THREADS = 2  # a call uses one, torch all that its caller has: with more of them it is as fast
C = structures(*(HERE / "training" / name for name in ("numbers.h", "attention.h")))


def takes(x: Tensor, time: int, d_kv: int) -> bool:
    """Whether heads of this type, so long and wide, can be given to `attention`, and gain by it."""
    return (
        x.dtype == torch.bfloat16
        and x.device.type == "cpu"
        and d_kv % WIDTH == 0
        and 0 < time <= MOST
        and torch.get_num_threads() <= THREADS
        and _found() is not None
    )


def _room(like: Tensor) -> Tensor:
    """Empty (batch, heads, time, d_kv), the heads of a time side by side."""
    batch, heads, time, width = like.shape
    return like.new_empty(batch, time, heads, width).transpose(1, 2)


class _Attention(torch.autograd.Function):
    """dropout(softmax(q kᵀ + bias)) v of (batch, heads, time, d_kv); the bias is (…, queries or 1, keys)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, p: float, seed: int) -> Tensor:
        q, k, v = (in_rows(x) for x in (q, k, v))
        bias = None if bias is None else in_rows(bias.float())
        batch, heads, queries, _ = q.shape
        out = _room(q)
        columns = -(-k.shape[2] // LANES) * LANES
        weights = torch.empty(batch, heads, queries, columns) if any(ctx.needs_input_grad) else None
        shape = _shape(q, k, p, seed, query=q, key=k, value=v, out=out, bias=bias)
        _run("attention", byref(shape), q, k, v, bias, out, weights)
        ctx.save_for_backward(q, k, v, bias, weights)
        ctx.p, ctx.seed = p, seed
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None, None, None]:
        q, k, v, bias, weights = ctx.saved_tensors
        grad = in_rows(grads[0])
        dq, dk, dv = (_room(each) for each in (q, k, v))
        dbias = torch.zeros_like(bias) if ctx.needs_input_grad[3] else None
        lying = {"query": q, "key": k, "value": v, "out": grad, "bias": dbias, "dquery": dq, "dkey": dk, "dvalue": dv}
        shape = _shape(q, k, ctx.p, ctx.seed, **lying)
        _run("attention_backward", byref(shape), q, k, v, weights, grad, dq, dk, dv, dbias)
        return dq, dk, dv, dbias, None, None


attention = _Attention.apply


def _shape(q: Tensor, k: Tensor, p: float, seed: int, **lying: Tensor | None) -> Any:
    batch, heads, queries, width = q.shape
    shape = C.Shape(batch, heads, queries, k.shape[2], width, dropout=C.Dropout(seed, *share(p)))
    for name, x in lying.items():
        if x is not None:
            wide = x if name != "bias" else x.expand(batch, heads, queries, k.shape[2])
            setattr(shape, name, C.Strides(*wide.stride()[:3]))
    return shape


def _run(name: str, *given: Any) -> None:
    if call(_found(), name, *given):
        raise MemoryError("no room for the weights of a head")


@functools.cache
def _found() -> CDLL | None:
    """The compiled code: with tiles where this processor and its system have them."""
    return tiled(IN_TILES) or ATTENTION.load()
