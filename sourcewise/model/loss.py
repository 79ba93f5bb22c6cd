"""Cross-entropy of a linear projection that never holds all the logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_LOGITS = 8_000_000  # logits held at a time: 16 MB in bf16


class _LinearCrossEntropy(torch.autograd.Function):
    """Forward computes the gradients too, chunk by chunk (as Liger's fused kernel does), so nothing is kept.

    Probabilities stay in the logits' precision: the softmax is one pass, and the gradient would be rounded anyway.
    What bf16 cannot tell, 1 − p of a likely label, is summed from the others' probabilities in fp32.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        wanted = any(ctx.needs_input_grad[:2])
        rows = max(64, CHUNK_LOGITS // len(weight))
        nats = torch.zeros((), dtype=torch.float32, device=states.device)
        dstates, dweight = torch.empty_like(states), torch.zeros_like(weight, dtype=torch.float32)
        for start in range(0, len(states), rows):
            x, y = states[start : start + rows], labels[start : start + rows, None]
            logits = x @ weight.T
            p = torch.softmax(logits, dim=-1)
            likely = p.gather(1, y)
            others = p.sum(-1, keepdim=True, dtype=torch.float32) - likely.float()
            top, place = logits.max(-1, keepdim=True)
            below = logits.gather(1, y).float() - top.float() + p.gather(1, place).float().log()
            log_p = torch.where(likely > 0.5, torch.log1p(-others), below)
            nats -= (1 - smoothing) * log_p.sum()
            if smoothing:  # Σ ln p over the vocabulary = Σ logits − size · logsumexp
                normaliser = logits.gather(1, y).float() - log_p
                nats -= smoothing * (logits.mean(-1, keepdim=True, dtype=torch.float32) - normaliser).sum()
            if wanted:
                p.scatter_(1, y, (smoothing - others).to(p.dtype))
                torch.mm(p, weight, out=dstates[start : start + rows])
                dweight += p.T @ x
        if smoothing and wanted:  # the even share of every entry, smoothing / size, without a pass over p
            even = smoothing / len(weight)
            dstates -= even * weight.sum(0, dtype=torch.float32).to(weight.dtype)
            dweight -= even * states.sum(0, dtype=torch.float32)
        if wanted:
            ctx.save_for_backward(dstates, dweight.to(weight.dtype))
        return nats

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        dstates, dweight = ctx.saved_tensors
        scale = grads[0]
        return dstates * scale.to(dstates.dtype), dweight * scale.to(dweight.dtype), None, None


def linear_cross_entropy(states: Tensor, weight: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Summed nats of labels (tokens,) under softmax(states (tokens, d_model) @ weight.T (d_model, vocabulary)).

    `smoothing` spreads that share of the target's probability evenly over the vocabulary (Szegedy et al. 2016).
    """
    nats: Tensor = _LinearCrossEntropy.apply(states, weight, labels, smoothing)
    return nats
