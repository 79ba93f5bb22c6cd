"""The likeliest tokens of many rows of logits, without a pass of softmax or a sort over the vocabulary."""

from __future__ import annotations

from torch import Tensor

GROUPS = (32, 16, 8)  # how many entries of the vocabulary compete before the sort, the first that divides it


def likeliest(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row, best first: values as float32 and ids, both (rows, count).

    The vocabulary is folded into groups; the winners are in the `count` groups with the largest maxima.
    """
    rows, size = logits.shape
    group = next((g for g in GROUPS if size % g == 0 and size // g >= count), None)
    if group is None:
        values, ids = logits.topk(count)
        return values.float(), ids
    folded = logits.view(rows, group, size // group)
    best = folded.amax(1).topk(count).indices  # (rows, count) groups; group j holds the ids j, j + size/group, ...
    places = best[:, None, :].expand(-1, group, -1)
    values, chosen = folded.gather(2, places).flatten(1).topk(count)
    ids = chosen // count * (size // group) + best.gather(1, chosen % count)
    return values.float(), ids


def log_normaliser(logits: Tensor) -> Tensor:
    """ln Σ exp of each row, float32 (rows, 1); exact in fp32, in bf16 as good as the logits."""
    top = logits.amax(-1, keepdim=True)
    return (logits - top).exp_().sum(-1, keepdim=True).float().log_() + top.float()
