"""Checks that a model's outputs are logits, and finds padding among labels."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from sourcewise.data.batches import IGNORED
from sourcewise.errors import NotFinite, RequestError

NEAR = 1e-2  # tolerance of a sum of probabilities, which may be in half precision
SPECIAL = 3  # ids up to this are special tokens in most vocabularies


def checked(logits: Tensor) -> Tensor:
    """Logits or log-probabilities (batch, time, vocabulary), unchanged. Raises RequestError for probabilities."""
    table = logits.detach().float()
    if table.shape[-1] > 1 and torch.isfinite(table).all():
        positive = bool((table >= 0).all())
        if positive and bool(((table.sum(-1) - 1).abs() < NEAR).all()):
            raise RequestError(
                "source_bits: the model gives probabilities (each row sums to 1), not logits; return what it has "
                "before its softmax, or log_softmax instead"
            )
        if positive and table.any() and bool((torch.logsumexp(-table, -1).abs() < NEAR).all()):
            raise RequestError("source_bits: negative log-probabilities are no logits; return them negated")
    return logits


def refuse_not_finite(nats: Tensor, labels: Tensor, logits: Tensor) -> None:
    """Raises NotFinite, with the place, if the nats (batch, time) of a counted label are NaN or infinite."""
    wrong = ~torch.isfinite(nats) & (labels != IGNORED)
    if not wrong.any():
        return
    row, step = (int(i) for i in wrong.nonzero()[0])
    label = int(labels[row, step])
    there = logits[row, step].float()
    excluded = bool(there[label] == -math.inf) and not bool((torch.isnan(there) | (there == math.inf)).any())
    what = "has the probability 0" if excluded else "has logits that are NaN or infinite"
    count = f"{int(wrong.sum()):,} of {int((labels != IGNORED).sum()):,} labels"
    raise NotFinite(
        f"source_bits: {count} have no finite loss; the first, example {row}, token {step} ({label}), {what}"
    )


def pad_ids(*models: Any) -> set[int]:
    """Padding ids of models: from configs, attributes such as trg_pad_idx, and embeddings."""
    found: list[Any] = []
    for model in models:
        config = getattr(model, "config", None)
        for owner in (config, getattr(config, "decoder", None)):
            found.append(getattr(owner, "pad_token_id", None))
        names = ("trg_pad_idx", "tgt_pad_idx", "pad_idx", "pad_id", "pad_token_id", "padding_idx")
        found += [getattr(model, name, None) for name in names]
        if isinstance(model, nn.Module):
            found += [m.padding_idx for m in model.modules() if isinstance(m, nn.Embedding)]
    return {int(i) for i in found if isinstance(i, int) and i >= 0}


def without_padding(labels: Tensor, pads: set[int]) -> tuple[Tensor, str]:
    """Labels (batch, time) with -100 for padding at the ends of rows, and a remark on it in one line, or "".

    Padding is the model's padding id, or else a special token that occurs at ends only. Other repeated ends are kept
    and remarked.
    """
    if bool((labels == IGNORED).any()) or labels.shape[1] < 2:
        return labels, ""
    last = labels[:, -1]
    twice = last[last == labels[:, -2]]
    known = [pad for pad in sorted(pads) if bool((last == pad).any())]
    if not known and len(twice) < 2:
        return labels, ""
    token = known[0] if known else int(twice.mode().values)
    tails = (labels == token).flip(1).cumprod(1).sum(1)
    place = torch.arange(labels.shape[1], device=labels.device)[None, :]
    begin = (labels.shape[1] - tails)[:, None]
    tail = place >= begin
    if not known and (token > SPECIAL or bool(((labels == token) & ~tail).any())):
        remark = f"{int((tails > 1).sum())} of {len(labels)} targets end in token {token} repeatedly, and all of these "
        return labels, remark + "count; if they are padding, give -100 instead"
    before = labels.gather(1, (begin - 1).clamp(min=0))
    if bool((tails > 0).all()) and len(before.unique()) > 1:
        tail &= place > begin  # all rows end in this token and have no other end of text: the first one is the end
    count = int(tail.sum())
    if not count or bool(tail.all()):
        return labels, ""
    return labels.masked_fill(
        tail, IGNORED
    ), f"{count} labels of {token} at the ends of targets are padding: not counted"
