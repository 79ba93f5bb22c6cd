"""Loss, norm, dropout and sums of a bf16 training step on a CPU, compiled: one pass where torch takes several.

`takes` says whether a tensor can be given to them; where it cannot (fp32, a GPU, no compiler), `layers.py` and
`loss.py` do the same with torch. The C++ is beside this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import CDLL, c_float, c_int64, c_uint32, c_uint64, c_void_p
from typing import Any

import torch
from torch import Tensor

from sourcewise.native.codes import KERNELS

LANES = 16  # numbers that compiled code looks at together
DRAWS = 2**16


def takes(x: Tensor) -> bool:
    """Whether the functions below can be given x."""
    return x.dtype == torch.bfloat16 and x.device.type == "cpu" and KERNELS.load() is not None


def cross_entropy_(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Nats (rows,) of the labels (rows,), 0 for one below 0; logits (rows, vocabulary) become their own gradient.

    Of the gradient the even share of the smoothing is left out: −smoothing / vocabulary for every entry.
    """
    nats = torch.empty(len(logits), dtype=torch.float32)
    _call("cross_entropy", logits, labels, *logits.shape, c_float(smoothing), nats)
    return nats


def divergence_(first: Tensor, second: Tensor) -> Tensor:
    """½ (KL(p ‖ q) + KL(q ‖ p)) (rows,) of two softmaxes; their logits (rows, vocabulary) become its gradients."""
    nats = torch.empty(len(first), dtype=torch.float32)
    _call("divergence", first, second, *first.shape, nats)
    return nats


class _RMSNorm(torch.autograd.Function):
    """x / rms(x) · weight over the last axis (Zhang & Sennrich 2019)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        x = x.contiguous()
        out, rstd = torch.empty_like(x), x.new_empty(x.shape[:-1], dtype=torch.float32)
        _call("rms_norm", x, weight, rstd.numel(), x.shape[-1], c_float(eps), out, rstd)
        ctx.save_for_backward(x, weight, rstd)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, rstd = ctx.saved_tensors
        grad = grads[0].contiguous()
        dx, dweight = torch.empty_like(x), torch.zeros(len(weight) + LANES)
        _call("rms_norm_backward", grad, x, weight, rstd, rstd.numel(), x.shape[-1], dx, dweight)
        return dx, dweight[: len(weight)].to(weight.dtype), None


class _AddDropped(torch.autograd.Function):
    """x + dropout(branch), or dropout(branch) alone: a share p of it is zero, the rest times 1/(1−p).

    The mask is the same for the same seed, and drawn again for the gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor | None, branch: Tensor, p: float, seed: int) -> Tensor:
        ctx.p, ctx.seed = p, seed
        return _dropped(x, branch, p, seed)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        kept = grads[0] if ctx.needs_input_grad[0] else None
        return kept, _dropped(None, grads[0], ctx.p, ctx.seed), None, None


class _ReluDropout(torch.autograd.Function):
    """dropout(relu(x)): where its output is zero no gradient passes, so the output is all it keeps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float, seed: int) -> Tensor:
        x = x.contiguous()
        out, ctx.p = torch.empty_like(x), p
        _call("relu_dropout", x, x.numel(), c_uint64(seed), *share(p), out)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (out,) = ctx.saved_tensors
        grad = grads[0].contiguous()
        dx, scale = torch.empty_like(grad), share(ctx.p)[1]
        _call("relu_dropout_backward", grad, out, grad.numel(), scale, dx)
        return dx, None, None


rms_norm, add_dropped, relu_dropout = _RMSNorm.apply, _AddDropped.apply, _ReluDropout.apply


def add_up(parts: Sequence[Tensor], scale: float, to: Tensor) -> None:
    """Put the sum of bf16 tensors, times `scale`, into one of fp32; all contiguous and of the same size."""
    places = (c_void_p * len(parts))(*(part.data_ptr() for part in parts))
    _call("add_up", places, len(parts), to.numel(), c_float(scale), to)


def _dropped(base: Tensor | None, x: Tensor, p: float, seed: int) -> Tensor:
    x = x.contiguous()
    base = None if base is None else base.contiguous()
    out = torch.empty_like(x)
    _call("dropout", base, x, x.numel(), c_uint64(seed), *share(p), out)
    return out


def in_rows(x: Tensor) -> Tensor:
    """The same numbers, those of the last axis beside each other."""
    return x if x.stride(-1) == 1 else x.contiguous()


def share(p: float) -> tuple[c_uint32, c_float]:
    """Of `DRAWS` draws those below the first are dropped; what stays is multiplied by the second."""
    dropped = min(round(p * DRAWS), DRAWS - 1)
    return c_uint32(dropped), c_float(DRAWS / (DRAWS - dropped))


def at(x: Tensor | None) -> c_void_p:
    """Where a tensor's numbers begin, for compiled code; a null pointer for none."""
    return c_void_p(None if x is None else x.data_ptr())


def call(code: CDLL | None, name: str, *given: Any) -> int:
    """Call a function of compiled code with tensors (or none), whole numbers (as int64_t) and values of ctypes."""
    assert code is not None
    passed = (at(x) if x is None or isinstance(x, Tensor) else c_int64(x) if isinstance(x, int) else x for x in given)
    return int(getattr(code, f"sourcewise_{name}")(*passed))


def _call(name: str, *given: Any) -> None:
    call(KERNELS.load(), name, *given)
