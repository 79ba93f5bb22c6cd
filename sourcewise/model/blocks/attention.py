"""Multi-head attention as T5 does it, with relative positions added to the scores; with BART's biases and scaling."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from sourcewise.model.blocks.layers import Linear, draw_seed, dropout
from sourcewise.native.training import attention as compiled

MASKED = -1e9  # added to the score of a slot that may not be seen


class RelativePositions(nn.Module):
    """T5's learned bias for the distance between query and key (Raffel et al. 2020, section 2.1)."""

    def __init__(self, buckets: int, distance: int, heads: int, *, bidirectional: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(buckets, heads)
        self.distance, self.bidirectional = distance, bidirectional

    def forward(self, queries: int, keys: int) -> Tensor:
        """Bias (heads, queries, keys), float32, for both counted from position 0."""
        device = self.table.weight.device
        relative = torch.arange(keys, device=device)[None, :] - torch.arange(queries, device=device)[:, None]
        return self.table(self.bucket(relative)).float().permute(2, 0, 1)

    def bucket(self, relative: Tensor) -> Tensor:
        """Key position − query position → bucket: exact when near, logarithmic when far."""
        buckets = self.table.num_embeddings
        if self.bidirectional:
            buckets //= 2
            offset = (relative > 0).long() * buckets
            relative = relative.abs()
        else:
            offset = torch.zeros_like(relative)
            relative = (-relative).clamp(min=0)
        exact = buckets // 2
        share = torch.log(relative.float() / exact) / math.log(self.distance / exact)
        far = (exact + (share * (buckets - exact)).long()).clamp(max=buckets - 1)
        return offset + torch.where(relative < exact, relative, far)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, p: float, training: bool) -> Tensor:
    """Softmax attention over (batch, heads, time, d_kv); bias broadcasts to (batch, heads, queries, keys).

    Keys and values may be wider (fp32) than the query; the softmax is in fp32 always.
    """
    if query.dtype == key.dtype and all(compiled.takes(x, x.shape[2], x.shape[3]) for x in (query, key)):
        p = p if training else 0.0
        return compiled.attention(query, key, value, bias, p, draw_seed() if p else 0)
    weights = attention_weights(query, key, bias).to(value.dtype)
    return (dropout(weights, p, training) @ value).to(query.dtype)


def attention_weights(query: Tensor, key: Tensor, bias: Tensor | None) -> Tensor:
    """(batch, heads, queries, keys) attention weights in fp32; each row sums to 1."""
    scores = (query.to(key.dtype) @ key.transpose(-1, -2)).float()
    if bias is not None:
        scores = scores + bias
    return torch.softmax(scores, dim=-1)


def kept(keys_or_values: Tensor) -> Tensor:
    """Keys or values as a decoder keeps them: a query at a time, a CPU reads fp32 1.5 times as fast as bf16."""
    if keys_or_values.device.type == "cpu" and torch.is_inference_mode_enabled():
        return keys_or_values.float().contiguous()
    return keys_or_values


class _SplitHeads(torch.autograd.Function):
    """(batch, time, parts × heads × d_kv) → `parts` tensors (batch, heads, time, d_kv), at most one copy each way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
        batch, time, width = x.shape
        ctx.shape = (batch, time, parts, heads, width // parts // heads)
        split = x.view(ctx.shape).permute(2, 0, 3, 1, 4)
        return (split if compiled.takes(x, time, ctx.shape[-1]) else split.contiguous()).unbind(0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        found = compiled.whole(grads)
        if found is not None:
            return found, None, None
        out = grads[0].new_empty(ctx.shape)
        for part, grad in enumerate(grads):
            out[:, :, part] = grad.transpose(1, 2)
        return out.flatten(2), None, None


def split_heads(x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """(batch, time, parts × heads × d_kv) → `parts` tensors (batch, heads, time, d_kv)."""
    found: tuple[Tensor, ...] = _SplitHeads.apply(x, parts, heads)
    return found


def merge_heads(read: Tensor, x: Tensor) -> Tensor:
    """What was read (sources, heads, hypotheses × time, d_kv) → (rows, time, heads × d_kv), laid out as x."""
    return read.transpose(1, 2).reshape(x.shape[0], x.shape[1], -1)


class SelfAttention(nn.Module):
    """Q, K and V of the same sequence, in one product; `scale` multiplies the scores."""

    def __init__(
        self, d_model: int, heads: int, d_kv: int, p: float, *, biases: bool = False, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.heads, self.d_kv, self.p, self.scale = heads, d_kv, p, scale
        self.qkv = Linear(d_model, 3 * heads * d_kv, bias=biases)
        self.out = Linear(heads * d_kv, d_model, bias=biases)

    def split(self, projected: Tensor, sources: int) -> tuple[Tensor, Tensor, Tensor]:
        """What `qkv` gives of (rows, time) → q, k, v, each (sources, heads, hypotheses × time, d_kv)."""
        q, k, v = split_heads(projected.view(sources, -1, self.qkv.out_features), 3, self.heads)
        return (q if self.scale == 1 else q * self.scale), k, v


class CrossAttention(nn.Module):
    """Q of the decoder; K and V of the encoder output, computed once a source; `scale` multiplies the scores."""

    def __init__(
        self, d_model: int, heads: int, d_kv: int, p: float, *, biases: bool = False, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.heads, self.d_kv, self.p, self.scale = heads, d_kv, p, scale
        self.q = Linear(d_model, heads * d_kv, bias=biases)
        self.kv = Linear(d_model, 2 * heads * d_kv, bias=biases)
        self.out = Linear(heads * d_kv, d_model, bias=biases)

    def keys_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Encoder output (batch, slots, d_model) → k, v, each (batch, heads, slots, d_kv)."""
        keys, values = split_heads(self.kv(states), 2, self.heads)
        return kept(keys), kept(values)

    def split(self, projected: Tensor, batch: int) -> Tensor:
        """What `q` gives of (batch × beams, time) → (batch, heads, beams × time, d_kv): beams share a source's keys."""
        q: Tensor = projected.view(batch, -1, self.heads, self.d_kv).transpose(1, 2)
        return q if self.scale == 1 else q * self.scale
