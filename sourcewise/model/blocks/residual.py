"""How the parts of a block stand beside its residual: norm, product, what the part does, product, dropout, sum.

What stands side by side is one pass where it can be compiled (`native/training/sublayers.py`); elsewhere it is
torch's operations.
"""

from __future__ import annotations

from torch import Tensor, nn

from sourcewise.model.blocks.layers import FeedForward, Linear, RMSNorm, add_dropped, draw_seed
from sourcewise.native.training import sublayers


class ResidualBlock(nn.Module):
    """A block whose parts are normed where they are entered or, without `norm_first`, where their sum leaves."""

    feedforward: FeedForward
    feedforward_norm: nn.Module

    def __init__(self, p: float, *, norm_first: bool = True) -> None:
        super().__init__()
        self.p, self.norm_first = p, norm_first

    def enter(self, x: Tensor, norm: nn.Module, linear: Linear) -> tuple[Tensor, Tensor]:
        """What a part begins with: linear(norm(x)), and x (..., d_model), which goes on beside it."""
        if not self.norm_first:
            return linear(x), x
        if isinstance(norm, RMSNorm) and sublayers.takes(x, linear.weight):
            return sublayers.entering(x, norm.weight, linear.weight, linear.bias, norm.eps)
        return linear(norm(x)), x

    def leave(self, x: Tensor, read: Tensor, linear: Linear, norm: nn.Module) -> Tensor:
        """What a part ends with: x + dropout(linear(read)) of read (..., inner) → (..., d_model)."""
        if sublayers.takes(read, linear.weight):
            p = self.p if self.training else 0.0
            x = sublayers.leaving(x, read, linear.weight, linear.bias, p, draw_seed() if p else 0)
        else:
            x = add_dropped(x, linear(read), self.p, self.training)
        return x if self.norm_first else norm(x)

    def feed(self, x: Tensor) -> Tensor:
        """The last part: the feed-forward; (..., d_model) → the same."""
        f, norm = self.feedforward, self.feedforward_norm
        plain = self.norm_first and f.activation == "relu" and not (f.gated or f.biases)
        if plain and isinstance(norm, RMSNorm) and sublayers.takes(x, f.wi.weight, f.wo.weight):
            ps = (f.p, self.p) if self.training else (0.0, 0.0)
            return sublayers.feedforward(
                x, norm.weight, f.wi.weight, f.wo.weight, norm.eps, ps, (draw_seed(), draw_seed())
            )
        hidden, x = self.enter(x, norm, f.wi)
        return self.leave(x, f.inner(hidden), f.wo, norm)
