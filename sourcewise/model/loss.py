"""Cross-entropy of a linear projection that never holds all the logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_LOGITS = 4_000_000  # logits held at a time: 16 MB in fp32


class _LinearCrossEntropy(torch.autograd.Function):
    """Forward computes the gradients too, chunk by chunk (as Liger's fused kernel does), so nothing is kept."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        wanted = any(ctx.needs_input_grad[:2])
        size = weight.shape[0]
        rows = max(64, CHUNK_LOGITS // size)
        nats = torch.zeros((), dtype=torch.float32, device=states.device)
        dstates = torch.empty_like(states) if wanted else None
        dweight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if wanted else None
        for start in range(0, len(states), rows):
            x, y = states[start : start + rows], labels[start : start + rows, None]
            log_p = torch.log_softmax((x @ weight.T).float(), dim=-1)
            picked = log_p.gather(1, y)
            nats -= (1 - smoothing) * picked.sum()
            if smoothing:
                nats -= smoothing / size * log_p.sum()
            if dstates is None or dweight is None:
                continue
            grad = log_p.exp_()
            # p − 1 by expm1: exact where p rounds to 1.
            grad.scatter_(1, y, picked.expm1() + smoothing)
            if smoothing:
                grad -= smoothing / size
            grad = grad.to(weight.dtype)
            torch.mm(grad, weight, out=dstates[start : start + rows])
            dweight += grad.T @ x
        if dstates is not None and dweight is not None:
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
