"""The one door for attention: what is read of keys and values, by whichever backend the network was given.

`eager` is written out in plain products and gives the weights too; `sdpa` is torch's own kernels.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from sourcewise.data.layout import Layout
from sourcewise.model.attention import eager, sdpa

MASKED = eager.MASKED


class Backend(Protocol):
    """Attention of heads (…, heads, time, d_kv): padded ones (batch, heads, time, d_kv), packed (heads, rows, d_kv)."""

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, own: Layout, other: Layout, bias: Tensor | None, dropout: nn.Dropout
    ) -> Tensor:
        """What queries, which lie as `own`, read of keys and values, which lie as `other`: the shape of q.

        bias (…, queries, keys) float32 is added to the scores; it bars the padding of a padded `other`.
        """


BACKENDS: dict[str, Backend] = {"eager": eager.attend, "sdpa": sdpa.attend}


class Attention(nn.Module):
    """Softmax attention by the chosen backend; `p` is the share of the weights that is dropped while training."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(p)
        self.backend: Backend = eager.attend

    def forward(self, q: Tensor, k: Tensor, v: Tensor, own: Layout, other: Layout, bias: Tensor | None) -> Tensor:
        """See Backend."""
        return self.backend(q, k, v, own, other, bias, self.dropout)


def choose(network: nn.Module, backend: str) -> None:
    """Let all attention of a network be computed by this backend (of BACKENDS)."""
    for module in network.modules():
        if isinstance(module, Attention):
            module.backend = BACKENDS[backend]


class SplitHeads(nn.Module):
    """What a projection gives for several `parts`, such as queries, keys and values, by its heads."""

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


def padding_bias(layout: Layout, device: torch.device) -> Tensor | None:
    """(batch, 1, 1, width) float32, added to scores: it bars padding; None where there is none."""
    return eager.padding_bias(layout, device)
