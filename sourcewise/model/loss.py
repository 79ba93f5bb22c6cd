"""Cross-entropy of a linear projection that never holds all the logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sourcewise.data.batches import IGNORED

CHUNK_LOGITS = 32_000_000  # logits held at a time: 64 MB in bf16
ROWS = 64  # rows come in multiples of these: a product of a new shape costs the CPU more than a few idle rows
LEAST = 1e-30  # probabilities below are not told from the softmax


class _LinearCrossEntropy(torch.autograd.Function):
    """Forward computes the gradients too, chunk by chunk (as Liger's fused kernel does), so nothing is kept.

    Probabilities stay in the logits' precision: the softmax is one pass, and the gradient would be rounded anyway.
    What bf16 cannot tell, 1 − p of a likely label, is summed from the others' probabilities in fp32.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        wanted = any(ctx.needs_input_grad[:2])
        rows = max(ROWS, CHUNK_LOGITS // len(weight) // ROWS * ROWS)
        nats = torch.zeros((), dtype=torch.float32, device=states.device)
        dstates, dweight = torch.empty_like(states), None
        for start in range(0, len(states), rows):
            x, y = states[start : start + rows], labels[start : start + rows]
            p, chunk_nats = _probabilities(x @ weight.T, y, smoothing)
            nats += chunk_nats
            if wanted:
                torch.mm(p, weight, out=dstates[start : start + rows])
                part = p.T @ x
                dweight = part if dweight is None else dweight.float().add_(part)
        if wanted:
            assert dweight is not None
            if smoothing:  # the even share of every entry, smoothing / size, without a pass over p
                even, real = smoothing / len(weight), (labels != IGNORED)[:, None]
                dstates -= even * weight.sum(0, dtype=torch.float32).to(weight.dtype) * real
                dweight = dweight.float() - even * (states * real).sum(0, dtype=torch.float32)
            ctx.save_for_backward(dstates, dweight.to(weight.dtype))
        return nats

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        dstates, dweight = ctx.saved_tensors
        scale = grads[0]
        return dstates * scale.to(dstates.dtype), dweight * scale.to(dweight.dtype), None, None


def _probabilities(logits: Tensor, labels: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Gradient by the logits (rows, vocabulary) but for the even share of the smoothing, and the summed nats.

    Rows whose label is IGNORED have none of both.
    """
    each, real = torch.arange(len(labels), device=labels.device), labels != IGNORED
    y = labels.clamp(min=0)
    p = torch.softmax(logits, dim=-1)
    likely = p[each, y].float()
    p[each, y] = 0
    others = p.sum(-1).float()  # summed in fp32, rounded once
    log_p = torch.where(likely > 0.5, torch.log1p(-others), likely.log())
    if bool((likely < LEAST).any()):  # from the logits: a float so small is imprecise, or zero
        below = logits[each, y].float() - logits.float().logsumexp(-1)
        log_p = torch.where(likely < LEAST, below, log_p)
    nats = -(1 - smoothing) * log_p
    if smoothing:  # Σ ln p over the vocabulary = Σ logits − size · logsumexp
        normaliser = logits[each, y].float() - log_p
        nats = nats - smoothing * (logits.sum(-1).float() / logits.shape[1] - normaliser)
    p[each, y] = (smoothing - others).to(p.dtype)
    p[(~real).nonzero().squeeze(1)] = 0
    return p, nats[real].sum()


def linear_cross_entropy(states: Tensor, weight: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Summed nats of labels (tokens,) under softmax(states (tokens, d_model) @ weight.T (d_model, vocabulary)).

    Labels that are IGNORED do not count; only as many of their states as make up a multiple of ROWS are looked at.
    `smoothing` spreads that share of the target's probability evenly over the vocabulary (Szegedy et al. 2016).
    """
    real = labels != IGNORED
    count = -(-int(real.sum()) // ROWS) * ROWS
    chosen = (~real).to(torch.uint8).argsort(stable=True)[:count]
    nats: Tensor = _LinearCrossEntropy.apply(states[chosen], weight, labels[chosen], smoothing)
    return nats
