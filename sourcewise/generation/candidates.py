"""Top-k and logsumexp over the vocabulary for many rows of logits, faster than torch's on CPUs."""

from __future__ import annotations

import torch
from torch import Tensor

HALVINGS = 5


def top_k(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest entries of each row, best first: values as float32 and ids, both (rows, count).

    Halves of the vocabulary are reduced to their element-wise maximum. Every one of the largest entries lies in a
    column with one of the `count` largest maxima, so only those columns are sorted.
    """
    winners, folds = logits, 1
    while folds < 2**HALVINGS and winners.shape[1] % 2 == 0 and winners.shape[1] // 2 >= count:
        half = winners.shape[1] // 2
        winners, folds = torch.maximum(winners[:, :half], winners[:, half:]), folds * 2
    values, columns = winners.topk(count)
    if folds == 1:
        return values.float(), columns
    width = winners.shape[1]
    places = columns[:, None, :].expand(-1, folds, -1)
    values, chosen = logits.view(len(logits), folds, width).gather(2, places).flatten(1).topk(count)
    return values.float(), chosen // count * width + columns.gather(1, chosen % count)


def logsumexp(logits: Tensor, top: Tensor | None = None) -> Tensor:
    """ln Σ exp of each row, float32 (rows, 1); `top` is each row's maximum, if known. Overwrites the logits.

    Exact in fp32; in bf16 as precise as the logits.
    """
    top = logits.amax(-1, keepdim=True) if top is None else top.to(logits.dtype)
    return logits.sub_(top).exp_().sum(-1, keepdim=True).float().log_() + top.float()
