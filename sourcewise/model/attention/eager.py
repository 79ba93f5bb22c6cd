"""Attention in plain matrix products: the reference for all other backends, and the source of attention weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sourcewise.data.layout import Layout

MASKED = -1e20  # added to the score of a masked position; scores of weights that ran away reach 1e13


def attend(
    q: Tensor, k: Tensor, v: Tensor, own: Layout, other: Layout, bias: Tensor | None, dropout: nn.Module
) -> Tensor:
    """See Backend. The softmax is always in fp32; keys and values may be fp32 with queries in bf16."""
    if own.packed or other.packed:
        bias = _with_padding(bias, other, q.device)
        q, k, v = _padded(q, own), _padded(k, other), _padded(v, other)
    weights = dropout(weights_of(q, k, bias).to(v.dtype))
    read = (weights @ v).to(q.dtype)
    return own.pack(read.transpose(1, 2)).transpose(0, 1) if own.packed else read


def weights_of(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    """softmax(q kᵀ + bias): (batch, heads, queries, keys) float32; each row sums to 1."""
    scores = (q.to(k.dtype) @ k.transpose(-1, -2)).float()
    return torch.softmax(scores if bias is None else scores + bias, dim=-1)


def weights(q: Tensor, k: Tensor, own: Layout, other: Layout, bias: Tensor | None) -> Tensor:
    """The weights of `attend`: (batch, heads, queries, keys) float32, padded also for packed layouts."""
    if other.packed:
        bias = _with_padding(bias, other, q.device)
    return weights_of(_padded(q, own), _padded(k, other), bias)


def attend_to_both(
    query: Tensor,
    source: tuple[Tensor, Tensor, Tensor],
    own: tuple[Tensor, Tensor, Tensor],
    dropout: nn.Module,
    seen: list[Tensor] | None = None,
) -> Tensor:
    """Attention to a source and to earlier target tokens under one softmax, without concatenating their keys.

    Each is keys, values (batch, heads, positions, d_kv) and their bias. The weights of the source (batch, heads,
    queries, positions), in fp32, are appended to `seen`.
    """
    scores = [(query.to(keys.dtype) @ keys.transpose(-1, -2)).float() + bias for keys, _, bias in (source, own)]
    weights = torch.softmax(torch.cat(scores, dim=-1), dim=-1)
    positions = source[0].shape[2]
    if seen is not None:
        seen.append(weights[..., :positions])
    weights = dropout(weights.to(own[1].dtype))
    read = weights[..., :positions].to(source[1].dtype) @ source[1] + weights[..., positions:] @ own[1]
    return read.to(query.dtype)


def padding_bias(layout: Layout, device: torch.device) -> Tensor | None:
    """(batch, 1, 1, width) float32, added to scores: it bars padding; None where there is none."""
    if layout.full:
        return None
    mask = layout.on(device).mask
    return torch.zeros(mask.shape, device=device).masked_fill_(~mask, MASKED)[:, None, None]


def _padded(heads: Tensor, layout: Layout) -> Tensor:
    """(heads, rows, d_kv) → (batch, heads, width, d_kv); padded heads are unchanged."""
    return layout.pad(heads.transpose(0, 1)).transpose(1, 2) if layout.packed else heads


def _with_padding(bias: Tensor | None, layout: Layout, device: torch.device) -> Tensor | None:
    padding = padding_bias(layout, device)
    return bias if padding is None else padding if bias is None else bias + padding
