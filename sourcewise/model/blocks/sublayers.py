"""Sub-layers of a Transformer block: self-attention, cross-attention and feed-forward, with norm and residual."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from sourcewise.data.layout import Layout
from sourcewise.model.attention import Attention, SplitHeads, eager, merge_heads
from sourcewise.model.blocks.activation import Activation

if TYPE_CHECKING:
    from sourcewise.model.blocks.memory import Memory

Extend = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # new keys and values → those of all tokens so far


class Residual(nn.Module):
    """Adds a sub-layer to its residual: pre-norm or, without `norm_first`, post-norm."""

    def __init__(self, p: float, *, norm_first: bool = True) -> None:
        super().__init__()
        self.dropout, self.norm_first = nn.Dropout(p), norm_first

    def forward(self, x: Tensor, norm: nn.Module, layer: nn.Module, *given: Any) -> Tensor:
        """x (…, d_model) → x + layer(x), in the same shape; `given` are further arguments of the layer."""
        if self.norm_first:
            return x + self.dropout(layer(norm(x), *given))
        return norm(x + self.dropout(layer(x, *given)))


class Sublayer(nn.Module):
    """A projection of x, a computation (attention or activation), and a projection back."""

    ends: tuple[str, str]  # names of the projections

    @property
    def projections(self) -> tuple[nn.Linear, nn.Linear]:
        """The first and the last projection."""
        first, last = self.ends
        return getattr(self, first), getattr(self, last)

    def forward(self, x: Tensor, *given: Any) -> Tensor:
        """(…, d_model) → (…, d_model)."""
        first, last = self.projections
        return last(self.between(first(x), *given))

    def between(self, projected: Tensor, *given: Any) -> Tensor:
        """The computation between the projections."""
        raise NotImplementedError


class SelfAttention(Sublayer):
    """Self-attention with one product for Q, K and V; `scale` multiplies the scores."""

    ends = "qkv", "out"

    def __init__(
        self, d_model: int, heads: int, d_kv: int, p: float, *, biases: bool = False, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.heads, self.d_kv, self.scale = heads, d_kv, scale
        self.qkv = nn.Linear(d_model, 3 * heads * d_kv, bias=biases)
        self.out = nn.Linear(heads * d_kv, d_model, bias=biases)
        self.split_qkv, self.attend = SplitHeads(3, heads), Attention(p)

    def split(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The output of `qkv` → q, k, v, each (…, heads, time, d_kv)."""
        q, k, v = self.split_qkv(projected)
        return (q if self.scale == 1 else q * self.scale), k, v

    def between(self, projected: Tensor, layout: Layout, bias: Tensor | None, extend: Extend | None = None) -> Tensor:  # type: ignore[override]
        """Attention to the same sequence; with `extend`, also to earlier tokens in a cache."""
        q, k, v = self.split(projected)
        if extend is not None:
            k, v = extend(k, v)
        return merge_heads(self.attend(q, k, v, layout, layout, bias))


class CrossAttention(Sublayer):
    """Cross-attention with Q of the decoder, K and V of the memory; `scale` multiplies the scores."""

    ends = "q", "out"

    def __init__(
        self, d_model: int, heads: int, d_kv: int, p: float, *, biases: bool = False, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.heads, self.d_kv, self.scale = heads, d_kv, scale
        self.q = nn.Linear(d_model, heads * d_kv, bias=biases)
        self.kv = nn.Linear(d_model, 2 * heads * d_kv, bias=biases)
        self.out = nn.Linear(heads * d_kv, d_model, bias=biases)
        self.split_q, self.split_kv = SplitHeads(1, heads), SplitHeads(2, heads)
        self.attend, self.for_decoding = Attention(p), ForDecoding()

    def keys_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Encoder output (…, positions, d_model) → k, v, each (…, heads, positions, d_kv)."""
        keys, values = self.split_kv(self.kv(states))
        return self.for_decoding(keys), self.for_decoding(values)

    def between(
        self, projected: Tensor, layout: Layout, memory: Memory, place: int, seen: list[Tensor] | None = None
    ) -> Tensor:  # type: ignore[override]
        """Attention of the decoder's layer `place` to the memory; the weights are appended to `seen`."""
        (q,) = self.split_q(projected)
        q = q if self.scale == 1 else q * self.scale
        keys, values = memory.keys_values[place] if memory.keys_values else self.keys_values(memory.states)
        if seen is not None:
            seen.append(eager.weights(q, keys, layout, memory.layout, memory.bias))
        return merge_heads(self.attend(q, keys, values, layout, memory.layout, memory.bias))


class FeedForward(Sublayer):
    """Two products with an activation between; if gated (Shazeer 2020), one product for gate and value."""

    ends = "wi", "wo"

    def __init__(self, d_model: int, d_ff: int, activation: str, p: float, *, biases: bool = False) -> None:
        super().__init__()
        self.inner = Activation(activation, d_ff, p)
        self.wi = nn.Linear(d_model, d_ff * (2 if self.inner.gated else 1), bias=biases)
        self.wo = nn.Linear(d_ff, d_model, bias=biases)

    def between(self, projected: Tensor) -> Tensor:  # type: ignore[override]
        """(…, d_ff, or twice that if gated) → (…, d_ff)."""
        return self.inner(projected)


class ForDecoding(nn.Identity):
    """Keys or values (…, heads, positions, d_kv), converted for reading at every step of decoding."""
