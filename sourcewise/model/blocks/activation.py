"""The activation of a feed-forward, plain or gated."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Activation(nn.Module):
    """`relu`, `silu`, `gelu`, or a gated one; gated gelu is T5's tanh approximation, gelu BART's exact form."""

    def __init__(self, kind: str, d_ff: int, p: float) -> None:
        super().__init__()
        self.gated, self.kind = kind.startswith("gated-"), kind.removeprefix("gated-")
        self.d_ff, self.dropout = d_ff, nn.Dropout(p)

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, d_ff, or twice that if gated) → (…, d_ff)."""
        if not self.gated:
            return self.dropout(activate(hidden, self.kind, "none"))  # type: ignore[no-any-return]
        gate, value = hidden.split(self.d_ff, dim=-1)
        return self.dropout(Gated.apply(gate, value, self.kind))  # type: ignore[no-any-return]


class Gated(torch.autograd.Function):
    """act(gate) · value, of which only gate and value are kept for the backward pass.

    act(gate) is computed again there: one pass over memory, where keeping it costs one to write and one to read.
    """

    @staticmethod
    def forward(ctx: Any, gate: Tensor, value: Tensor, kind: str) -> Tensor:
        """Gate and value (…, d_ff) → (…, d_ff); `kind` is the activation's name."""
        ctx.save_for_backward(gate, value)
        ctx.kind = kind
        return activate(gate, kind, "tanh") * value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """Gradients of gate and value."""
        gate, value = ctx.saved_tensors
        acted, upstream = activate(gate, ctx.kind, "tanh"), grad * value
        if ctx.kind == "gelu":
            of_gate = torch.ops.aten.gelu_backward(upstream, gate, approximate="tanh")
        elif ctx.kind == "relu":
            of_gate = torch.ops.aten.threshold_backward(upstream, acted, 0)
        else:
            of_gate = torch.ops.aten.silu_backward(upstream, gate)
        return of_gate, grad * acted, None


def activate(x: Tensor, kind: str, gelu: str) -> Tensor:
    """relu(x), silu(x) or gelu(x), the last exactly (`none`) or by its approximation (`tanh`)."""
    if kind == "gelu":
        return F.gelu(x, approximate=gelu)
    return F.relu(x) if kind == "relu" else F.silu(x)
