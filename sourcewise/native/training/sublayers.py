"""Parts of a Transformer's block in a bf16 training step, compiled for CPUs that multiply bf16 tiles (AMX).

A product goes together with what stands before it (the norm) and after it (bias, relu, dropout, the residual), in
pieces of rows that stay in the processor's cache. `takes` says whether they can be given a tensor; where not,
`residual.py` does the same with torch. The C++ is beside this file.
"""

from __future__ import annotations

from ctypes import CDLL, c_float, c_int64, c_uint32, c_uint64
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sourcewise.native.training.kernels import at, at_or_none, share
from sourcewise.native.training.tiles import SIDE, suits, tiled

CODE = Path(__file__).with_name("sublayers.cpp")
FEW = 128  # rows below which torch is as fast: bringing weights into tiles is most of the work


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
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor]:
        ctx.eps = eps
        x, weight = x.contiguous(), weight.contiguous()
        out = x.new_empty((*x.shape[:-1], len(weight)))
        given = (at(x), at_or_none(scale), at(weight), at_or_none(bias), *_sizes(x, weight), c_float(eps))
        _done(_code().sourcewise_normed(*given, at(out)))
        ctx.save_for_backward(x, scale, weight, bias)
        return out, x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None, None]:
        x, scale, weight, bias = ctx.saved_tensors
        grad, beside = grads[0].contiguous(), grads[1]
        beside = None if beside is None else beside.contiguous()
        dx, dweight = torch.empty_like(x), torch.empty_like(weight)
        dscale, dbias = _sums(scale), _sums(bias)
        given = (
            at(grad),
            at(x),
            at_or_none(scale),
            at(weight),
            at_or_none(beside),
            *_sizes(x, weight),
            c_float(ctx.eps),
        )
        found = (at(dx), at_or_none(dscale), at(dweight), at_or_none(dbias))
        _done(_code().sourcewise_normed_backward(*given, *found))
        return dx, _narrow(dscale), dweight, _narrow(dbias), None


class _Leaving(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, weight: Tensor, bias: Tensor | None, p: float, seed: int) -> Tensor:
        x, a, weight = x.contiguous(), a.contiguous(), weight.contiguous()
        out, ctx.drawn = torch.empty_like(x), (c_uint64(seed), *share(p))
        given = (at(x), at(a), at(weight), at_or_none(bias), *_sizes(a, weight), *ctx.drawn)
        _done(_code().sourcewise_added(*given, at(out)))
        ctx.save_for_backward(a, weight, bias)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None, None, None]:
        a, weight, bias = ctx.saved_tensors
        grad, da, dweight, dbias = grads[0].contiguous(), torch.empty_like(a), torch.empty_like(weight), _sums(bias)
        given = (at(grad), at(a), at(weight), *_sizes(a, weight), *ctx.drawn)
        _done(_code().sourcewise_added_backward(*given, at(da), at(dweight), at_or_none(dbias)))
        return grad, da, dweight, _narrow(dbias), None, None


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, wi: Tensor, wo: Tensor, eps: float, ps: tuple[float, float], seeds: Any
    ) -> Tensor:
        x, wi, wo = x.contiguous(), wi.contiguous(), wo.contiguous()
        dropped, kept = zip(*(share(p) for p in ps), strict=True)
        ctx.drawn = (c_float(eps), (c_uint64 * 2)(*seeds), (c_uint32 * 2)(*dropped), (c_float * 2)(*kept))
        sizes = _sizes(x, wi)
        hidden, out = x.new_empty(-(-sizes[0].value // SIDE) * SIDE * len(wi)), torch.empty_like(x)
        given = (at(x), at(scale), at(wi), at(wo), *sizes, *ctx.drawn)
        _done(_code().sourcewise_feedforward(*given, at(hidden), at(out)))
        ctx.save_for_backward(x, scale, wi, wo, hidden)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, wi, wo, hidden = ctx.saved_tensors
        grad, dx, dscale = grads[0].contiguous(), torch.empty_like(x), _sums(scale)
        dwi, dwo = torch.empty_like(wi), torch.empty_like(wo)
        given = (at(grad), at(x), at(scale), at(wi), at(wo), at(hidden), *_sizes(x, wi), *ctx.drawn)
        found = (at(dx), at_or_none(dscale), at(dwi), at(dwo))
        _done(_code().sourcewise_feedforward_backward(*given, *found))
        return dx, _narrow(dscale), dwi, dwo, None, None, None


def entering(
    x: Tensor, scale: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float = 0.0
) -> tuple[Tensor, Tensor]:
    """rms_norm(x) @ weight.T + bias, (..., outputs), and x, for the residual: their gradients are added within.

    Without a scale there is no norm. Raises MemoryError.
    """
    out, beside = _Entering.apply(x, scale, weight, bias, eps)
    return out, beside


def leaving(x: Tensor, a: Tensor, weight: Tensor, bias: Tensor | None, p: float, seed: int) -> Tensor:
    """x + dropout(a @ weight.T + bias) of a (..., width) and x (..., outputs). Raises MemoryError."""
    out: Tensor = _Leaving.apply(x, a, weight, bias, p, seed)
    return out


def feedforward(
    x: Tensor, scale: Tensor, wi: Tensor, wo: Tensor, eps: float, ps: tuple[float, float], seeds: tuple[int, int]
) -> Tensor:
    """x + dropout(dropout(relu(rms_norm(x) @ wi.T)) @ wo.T); shares and seeds of what is dropped within, and of all.

    Raises MemoryError.
    """
    out: Tensor = _FeedForward.apply(x, scale, wi, wo, eps, ps, seeds)
    return out


def _sizes(x: Tensor, weight: Tensor) -> tuple[c_int64, c_int64, c_int64]:
    return c_int64(x.numel() // x.shape[-1]), c_int64(x.shape[-1]), c_int64(len(weight))


def _sums(like: Tensor | None) -> Tensor | None:
    return None if like is None else torch.zeros(like.shape)


def _narrow(sums: Tensor | None) -> Tensor | None:
    return None if sums is None else sums.to(torch.bfloat16)


def _done(failed: int) -> None:
    if failed:
        raise MemoryError("no room for a layer's weights in tiles")


def _code() -> CDLL:
    code = tiled(CODE)
    assert code is not None
    return code
