"""Attention: one interface, computed by the backend that was chosen for the network.

`eager` is written in plain matrix products and can return the weights; `sdpa` uses torch's fused kernels.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from sourcewise.data.layout import Layout
from sourcewise.model.attention import eager, sdpa

MASKED, padding_bias = eager.MASKED, eager.padding_bias


class Backend(Protocol):
    """Multi-head attention of padded heads (batch, heads, time, d_kv) or packed ones (heads, rows, d_kv)."""

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, own: Layout, other: Layout, bias: Tensor | None, dropout: nn.Dropout
    ) -> Tensor:
        """Weighted sums of values, in the shape of q; queries have the layout `own`, keys and values `other`.

        bias (…, queries, keys) float32 is added to the scores; it masks the padding of a padded `other`.
        """


BACKENDS: dict[str, Backend] = {"eager": eager.attend, "sdpa": sdpa.attend}


CASTING: list[Backend] = [sdpa.attend]  # those that add the bias in the precision of the keys


class Attention(nn.Module):
    """Softmax attention by the chosen backend; `p` is the dropout of attention weights."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(p)
        self.backend: Backend = eager.attend

    def forward(self, q: Tensor, k: Tensor, v: Tensor, own: Layout, other: Layout, bias: Tensor | None) -> Tensor:
        """See Backend."""
        return self.backend(q, k, v, own, other, bias, self.dropout)


def for_layers(module: Attention, bias: Tensor | None, like: Tensor) -> Tensor | None:
    """The bias of a stack as its backend adds it to scores, made once: each layer would keep one of its own."""
    return bias.to(like.dtype) if bias is not None and module.backend in CASTING else bias


def choose(network: nn.Module, backend: str) -> None:
    """Choose the backend (of BACKENDS) of all attention in a network."""
    for module in network.modules():
        if isinstance(module, Attention):
            module.backend = BACKENDS[backend]


class SplitHeads(nn.Module):
    """Splits the output of one projection into `parts`, such as queries, keys and values, and into heads."""

    def __init__(self, parts: int, heads: int) -> None:
        super().__init__()
        self.parts, self.heads = parts, heads

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(…, time, parts × heads × d_kv) → `parts` tensors (…, heads, time, d_kv)."""
        split = x.unflatten(-1, (self.parts, self.heads, -1))
        return split.movedim(-3, 0).transpose(-3, -2).contiguous().unbind(0)


def merge_heads(read: Tensor) -> Tensor:
    """(…, heads, time, d_kv) → (…, time, heads × d_kv)."""
    return read.transpose(-3, -2).flatten(-2)
