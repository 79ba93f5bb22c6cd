"""Products across the tokens of a batch, on CPUs that multiply bf16 tiles (AMX): the gradients of weights.

torch brings such operands into place at half the speed of its other products. `takes` says whether two matrices can
be given to `across`; where not, `linear` is torch's.
"""

from __future__ import annotations

import functools
from ctypes import CDLL, c_int, c_int64
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sourcewise.compiled import machine_code
from sourcewise.model.kernels import at

CODE = Path(__file__).with_name("across.cpp")
NEEDS = ("amx_tile", "amx_bf16", "avx512f", "avx512bw", "avx512_bf16")
SIDE = 32  # widths are multiples of it
FEW = 768  # rows below which torch is as fast: bringing them into tiles is most of the work


@functools.cache
def _tiles() -> CDLL | None:
    """The compiled code, where the system lets this process use tiles."""
    code = machine_code(CODE, NEEDS)
    return code if code is not None and code.sourcewise_tiles() else None


def has_tiles() -> bool:
    """Whether this process may use tiles."""
    return _tiles() is not None


def takes(a: Tensor, b: Tensor) -> bool:
    """Whether `across` can be given a and b, and gains by it: it uses one thread, torch all that the caller has."""
    return (
        a.dtype == b.dtype == torch.bfloat16
        and a.device.type == "cpu"
        and a.shape[-1] % SIDE == 0
        and b.shape[-1] % SIDE == 0
        and a.numel() >= FEW * a.shape[-1]
        and torch.get_num_threads() == 1
        and has_tiles()
    )


def across(a: Tensor, b: Tensor) -> Tensor:
    """aᵀ b (p, q) of a (rows, p) and b (rows, q), summed in fp32. Raises MemoryError."""
    out, code = torch.empty(a.shape[1], b.shape[1], dtype=a.dtype), _tiles()
    assert code is not None
    flip = a.shape[1] > b.shape[1]
    x, y = (_rows(each) for each in ((b, a) if flip else (a, b)))
    sizes = (c_int64(n) for n in (len(x), x.shape[1], y.shape[1]))
    if code.sourcewise_across(at(x), _stride(x), at(y), _stride(y), *sizes, c_int(flip), at(out)):
        raise MemoryError(f"no room for the tiles of {len(a):,} rows")
    return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
        (grad,), (x, weight) = grads, ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])
        dx = grad @ weight if ctx.needs_input_grad[0] else None
        dbias = rows.sum(0) if ctx.needs_input_grad[2] else None
        return dx, across(rows, x.reshape(-1, x.shape[-1])), dbias


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (..., inputs) @ weight.T (inputs, outputs) + bias (outputs,) → (..., outputs)."""
    if torch.is_grad_enabled() and weight.requires_grad and takes(x, weight.T):
        out: Tensor = _Linear.apply(x, weight, bias)
        return out
    return F.linear(x, weight, bias)


def _rows(x: Tensor) -> Tensor:
    return x if x.stride(1) == 1 else x.contiguous()


def _stride(x: Tensor) -> c_int64:
    return c_int64(x.stride(0))
