"""Norm and dropout on a CPU, of torch's operations: in fp32, and where nothing can be compiled.

torch's own RMSNorm backward and dropout take more time than all matrix products of a small model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sourcewise.native.training import draws


class _RMSNorm(torch.autograd.Function):
    """RMSNorm whose backward is LayerNorm's fused kernel, given a mean of zero, plus the term that cancels its mean."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()  # whole passes in fp32, where a mixed product is ten times slower
        rstd = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, rstd)
        return (wide * rstd).mul_(weight.float()).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, rstd = ctx.saved_tensors
        grad = grads[0].contiguous()
        zero, scale = torch.zeros_like(rstd), weight.float()
        dx, dweight, _ = torch.ops.aten.native_layer_norm_backward(
            grad, x, [x.shape[-1]], zero, rstd, scale, scale, [True, True, False]
        )
        # LayerNorm's gradient has −rstd·mean(grad·weight) for the mean it subtracts; RMSNorm subtracts none.
        dx += ((grad @ weight).unsqueeze(-1) * rstd / x.shape[-1]).to(dx.dtype)
        return dx, dweight.to(weight.dtype), None


_INTEGERS = {2: torch.int16, 4: torch.int32}  # as wide as an element


def _keep_mask(x: Tensor, p: float) -> tuple[Tensor, float]:
    """Integers of x's shape, all ones where an element stays and zero where it goes, and the scale of those that stay.

    One random byte an element: p is rounded to 1/256, and the scale follows it exactly.
    """
    dropped = min(max(1, round(p * 256)), 255)
    drawn = draws.stream().random_raw((x.numel() + 7) // 8).view(np.int8)[: x.numel()]
    integers = torch.from_numpy(drawn).to(_INTEGERS[x.element_size()]).view(x.shape)
    # −128 … 127 minus a threshold: the sign bit, spread over the lane, is the mask.
    mask = integers.sub_(128 - dropped).bitwise_right_shift_(8 * x.element_size() - 1)
    return mask, 256 / (256 - dropped)


def _masked(x: Tensor, mask: Tensor) -> Tensor:
    return (x.contiguous().view(mask.dtype) & mask).view(x.dtype)


class _ReluDropout(torch.autograd.Function):
    """dropout(relu(x)): where its output is zero no gradient passes, so the output is all it keeps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        mask, ctx.scale = _keep_mask(x, p)
        out = F.relu(x)
        out.view(mask.dtype).bitwise_and_(mask)
        ctx.save_for_backward(out.mul_(ctx.scale))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return torch.ops.aten.threshold_backward(grads[0], *ctx.saved_tensors, 0).mul_(ctx.scale), None


class _AddDropped(torch.autograd.Function):
    """x + dropout(branch), or dropout(branch) alone: a share p of it is zero, the rest times 1/(1−p)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor | None, branch: Tensor, p: float) -> Tensor:
        mask, ctx.scale = _keep_mask(branch, p)
        ctx.save_for_backward(mask)
        kept = _masked(branch, mask)
        return kept.mul_(ctx.scale) if x is None else torch.add(x, kept, alpha=ctx.scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, None]:
        beside = grads[0] if ctx.needs_input_grad[0] else None
        return beside, _masked(grads[0], *ctx.saved_tensors).mul_(ctx.scale), None


class _SplitHeads(torch.autograd.Function):
    """(…, time, parts × heads × d_kv) → `parts` tensors (…, heads, time, d_kv), one copy each way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
        split = x.unflatten(-1, (parts, heads, -1))
        ctx.shape = split.shape
        return split.movedim(-3, 0).transpose(-3, -2).contiguous().unbind(0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        out = grads[0].new_empty(ctx.shape)
        for part, grad in enumerate(grads):
            out[..., part, :, :] = grad.transpose(-3, -2)
        return out.flatten(-3), None, None


rms_norm, add_dropped, relu_dropout = _RMSNorm.apply, _AddDropped.apply, _ReluDropout.apply
split_heads = _SplitHeads.apply
