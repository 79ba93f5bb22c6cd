"""Are these logits? And which labels are padding?"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from sourcewise.data.batches import IGNORED
from sourcewise.errors import NotFinite, RequestError

NEAR = 1e-2  # of a sum of probabilities, which may be in half precision
SPECIAL = 3  # ids up to this are special tokens in most vocabularies


def checked(logits: Tensor) -> Tensor:
    """Logits (batch, time, vocabulary) or log-probabilities, as they are. Raises RequestError for probabilities."""
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
    """Raises NotFinite where the nats (batch, time) of a label that counts are none, of these logits: says where."""
    wrong = ~torch.isfinite(nats) & (labels != IGNORED)
    if not wrong.any():
        return
    row, step = (int(i) for i in wrong.nonzero()[0])
    label = int(labels[row, step])
    there = logits[row, step].float()
    barred = bool(there[label] == -math.inf) and not bool((torch.isnan(there) | (there == math.inf)).any())
    what = "has the probability 0" if barred else "has logits that are NaN or infinite"
    count = f"{int(wrong.sum()):,} of {int((labels != IGNORED).sum()):,} labels"
    raise NotFinite(
        f"source_bits: {count} have no finite loss; the first, example {row}, token {step} ({label}), {what}"
    )


def pad_ids(*models: Any) -> set[int]:
    """The ids that models call padding: in a config, as an attribute such as trg_pad_idx, in embeddings."""
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
    """Labels (batch, time) with -100 where rows end in padding, and how that was understood, in a line; "" for nothing.

    What a model calls padding is taken for it; a special token that comes at ends alone, too. Other ends are told.
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
        told = f"{int((tails > 1).sum())} of {len(labels)} targets end in token {token} again and again, and all of it "
        return labels, told + "counts; where it is padding, give -100 instead"
    before = labels.gather(1, (begin - 1).clamp(min=0))
    if bool((tails > 0).all()) and len(before.unique()) > 1:
        tail &= place > begin  # every row ends in it, and in no other end of text before: the first one is that
    count = int(tail.sum())
    if not count or bool(tail.all()):
        return labels, ""
    return labels.masked_fill(
        tail, IGNORED
    ), f"{count} labels of {token} at the ends of targets are padding: not counted"
