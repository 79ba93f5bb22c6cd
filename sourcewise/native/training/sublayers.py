"""Parts of a Transformer's block in a bf16 training step, compiled for CPUs that multiply bf16 tiles (AMX).

A product goes together with what stands before it (the norm) and after it (bias, relu, dropout, the residual), in
pieces of rows that stay in the processor's cache. `takes` says whether they can be given a tensor; where not,
`residual.py` does the same with torch. The C++ is beside this file.
"""

from __future__ import annotations

from ctypes import c_float, c_uint32, c_uint64
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sourcewise.native.training.kernels import share
from sourcewise.native.training.tiles import SIDE, run, suits, tiled

CODE = Path(__file__).with_name("sublayers.cpp")
FEW = 128  # rows below which torch is as fast: bringing weights into tiles is most of the work
_run = partial(run, CODE, room="a layer's weights in tiles")


def takes(x: Tensor, *weights: Tensor) -> bool:
    """Whether the functions below can be given x (..., width) and these weights, and gain by it.

    They are for learning: each call brings the weights into tiles.
    """
    return (
        torch.is_grad_enabled()
        and suits(x, FEW)
        and all(w.dtype == x.dtype and w.shape[0] % SIDE == 0 and w.shape[1] % SIDE == 0 for w in weights)
        and tiled(CODE) is not None
    )


class _Entering(torch.autograd.Function):
    """rms_norm(x) @ weight.T + bias, (..., outputs), and x, for the residual: their gradients are added within.

    Without a scale there is no norm. Raises MemoryError.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor]:
        ctx.eps = eps
        x, weight = x.contiguous(), weight.contiguous()
        out = x.new_empty((*x.shape[:-1], len(weight)))
        _run("normed", x, scale, weight, bias, *_sizes(x, weight), c_float(eps), out)
        ctx.save_for_backward(x, scale, weight, bias)
        return out, x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None, None]:
        x, scale, weight, bias = ctx.saved_tensors
        grad, beside = grads[0].contiguous(), grads[1]
        beside = None if beside is None else beside.contiguous()
        dx, dweight = torch.empty_like(x), torch.empty_like(weight)
        dscale, dbias = _sums(scale), _sums(bias)
        given = grad, x, scale, weight, beside, *_sizes(x, weight), c_float(ctx.eps)
        _run("normed_backward", *given, dx, dscale, dweight, dbias)
        return dx, _narrow(dscale), dweight, _narrow(dbias), None


class _Leaving(torch.autograd.Function):
    """x + dropout(a @ weight.T + bias) of a (..., width) and x (..., outputs). Raises MemoryError."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, weight: Tensor, bias: Tensor | None, p: float, seed: int) -> Tensor:
        x, a, weight = x.contiguous(), a.contiguous(), weight.contiguous()
        out, ctx.drawn = torch.empty_like(x), (c_uint64(seed), *share(p))
        _run("added", x, a, weight, bias, *_sizes(a, weight), *ctx.drawn, out)
        ctx.save_for_backward(a, weight, bias)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None, None, None]:
        a, weight, bias = ctx.saved_tensors
        grad, da, dweight, dbias = grads[0].contiguous(), torch.empty_like(a), torch.empty_like(weight), _sums(bias)
        _run("added_backward", grad, a, weight, *_sizes(a, weight), *ctx.drawn, da, dweight, dbias)
        return grad, da, dweight, _narrow(dbias), None, None


class _FeedForward(torch.autograd.Function):
    """x + dropout(dropout(relu(rms_norm(x) @ wi.T)) @ wo.T); shares and seeds of what is dropped within, and of all.

    Raises MemoryError.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, wi: Tensor, wo: Tensor, eps: float, ps: tuple[float, float], seeds: Any
    ) -> Tensor:
        x, wi, wo = x.contiguous(), wi.contiguous(), wo.contiguous()
        dropped, kept = zip(*(share(p) for p in ps), strict=True)
        ctx.drawn = (c_float(eps), (c_uint64 * 2)(*seeds), (c_uint32 * 2)(*dropped), (c_float * 2)(*kept))
        sizes = _sizes(x, wi)
        hidden, out = x.new_empty(-(-sizes[0] // SIDE) * SIDE * len(wi)), torch.empty_like(x)
        _run("feedforward", x, scale, wi, wo, *sizes, *ctx.drawn, hidden, out)
        ctx.save_for_backward(x, scale, wi, wo, hidden)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, wi, wo, hidden = ctx.saved_tensors
        grad, dx, dscale = grads[0].contiguous(), torch.empty_like(x), _sums(scale)
        dwi, dwo = torch.empty_like(wi), torch.empty_like(wo)
        given = grad, x, scale, wi, wo, hidden, *_sizes(x, wi), *ctx.drawn
        _run("feedforward_backward", *given, dx, dscale, dwi, dwo)
        return dx, _narrow(dscale), dwi, dwo, None, None, None


entering, leaving, feedforward = _Entering.apply, _Leaving.apply, _FeedForward.apply


def _sizes(x: Tensor, weight: Tensor) -> tuple[int, int, int]:
    return x.numel() // x.shape[-1], x.shape[-1], len(weight)


def _sums(like: Tensor | None) -> Tensor | None:
    return None if like is None else torch.zeros(like.shape)


def _narrow(sums: Tensor | None) -> Tensor | None:
    return None if sums is None else sums.to(torch.bfloat16)
