"""Attention by torch's `scaled_dot_product_attention`, with fused kernels where the device has them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sourcewise.data.layout import Layout
from sourcewise.model.attention import eager


def attend(
    q: Tensor, k: Tensor, v: Tensor, own: Layout, other: Layout, bias: Tensor | None, dropout: nn.Dropout
) -> Tensor:
    """See Backend; packed heads are computed by `eager`."""
    if own.packed or other.packed:
        return eager.attend(q, k, v, own, other, bias, dropout)
    mask = None if bias is None else bias.to(k.dtype)
    p = dropout.p if dropout.training else 0.0
    read = F.scaled_dot_product_attention(q.to(k.dtype), k, v, attn_mask=mask, dropout_p=p, scale=1.0)
    return read.to(q.dtype)
