"""The small parts of a Transformer: normalisation, dropout, feed-forward.

Each has a CPU form written for bf16: measured on two cores, PyTorch's own RMSNorm backward and dropout
took more time than all matrix products of a small model.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _RMSNorm(torch.autograd.Function):
    """RMSNorm whose backward is LayerNorm's fused kernel, given a mean of zero, plus the term that cancels its mean."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        out, rstd = torch.ops.aten._fused_rms_norm(x, [x.shape[-1]], weight, eps)
        ctx.save_for_backward(x, weight, rstd)
        return out

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


class RMSNorm(nn.Module):
    """x / rms(x) · weight over the last axis (Zhang & Sennrich 2019); T5's layer norm."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) → the same shape."""
        if x.device.type == "cpu" and torch.is_grad_enabled():
            return _RMSNorm.apply(x, self.weight, self.eps)
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class _Dropout(torch.autograd.Function):
    """Dropout by random bytes, eight from one 64-bit draw; p is rounded to 1/256 and the scale follows it exactly."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        dropped = max(1, round(p * 256))
        bits = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        keep = (bits.view(torch.uint8)[: x.numel()] >= dropped).view(x.shape)
        ctx.save_for_backward(keep)
        ctx.scale = 256 / (256 - dropped)
        return (x * keep).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return (grads[0] * keep).mul_(ctx.scale), None


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero a share p of the elements and scale the rest by 1/(1−p), while training."""
    if not training or p == 0:
        return x
    if x.device.type == "cpu":
        return _Dropout.apply(x, p)
    return F.dropout(x, p)


class FeedForward(nn.Module):
    """T5's feed-forward: relu, or gated (Shazeer 2020) with gate and value in one product."""

    def __init__(self, d_model: int, d_ff: int, activation: str, p: float) -> None:
        super().__init__()
        self.gated = activation.startswith("gated-")
        self.activation = activation.removeprefix("gated-")
        self.d_ff, self.p = d_ff, p
        self.wi = nn.Linear(d_model, d_ff * (2 if self.gated else 1), bias=False)
        self.wo = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_model) → (..., d_model)."""
        hidden = self.wi(x)
        if self.gated:
            gate, value = hidden.split(self.d_ff, dim=-1)
            hidden = self._act(gate) * value
        else:
            hidden = self._act(hidden)
        return self.wo(dropout(hidden, self.p, self.training))

    def _act(self, x: Tensor) -> Tensor:
        if self.activation == "relu":
            return F.relu(x)
        if self.activation == "silu":
            return F.silu(x)
        return F.gelu(x, approximate="tanh")  # T5's gelu_new


def sinusoids(length: int, width: int, device: torch.device | None = None) -> Tensor:
    """(length, width) float32 sinusoidal positions (Vaswani et al. 2017), sines then cosines."""
    half = (width + 1) // 2
    rates = torch.exp(-torch.arange(half, device=device) * (torch.log(torch.tensor(10000.0)) / max(half - 1, 1)))
    angles = torch.arange(length, device=device)[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), dim=1)[:, :width]
