"""Cross-entropy of a linear projection that never holds all the logits."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sourcewise.data.batches import IGNORED
from sourcewise.native import training as kernels
from sourcewise.native.training import cross_entropy

CHUNK_LOGITS = 80_000_000  # logits held at a time: 160 MB in bf16
ROWS = 64  # rows come in multiples of these: a product of a new shape costs the CPU more than a few idle rows
SHIFTED = 2048  # rows of the vocabulary's gradient shifted at a time
LEAST = 1e-30  # probabilities below are not told from the softmax


@dataclass(frozen=True, slots=True)
class Emphasis:
    """How much each target token counts: its weight, (vocabulary,) float32, times (1 − p)^focal (Lin et al. 2017).

    The share that label smoothing spreads evenly has the token's weight, and no focal factor.
    """

    weights: Tensor | None = None
    focal: float = 0.0


def chunk_rows(vocabulary: int) -> int:
    """How many rows of logits are held at a time."""
    return max(ROWS, CHUNK_LOGITS // vocabulary // ROWS * ROWS)


class _LinearCrossEntropy(torch.autograd.Function):
    """Forward computes the gradients too, chunk by chunk (as Liger's fused kernel does), so nothing is kept.

    Probabilities stay in the logits' precision: the softmax is one pass, and the gradient would be rounded anyway.
    What bf16 cannot tell, 1 − p of a likely label, is summed from the others' probabilities in fp32.
    Returns what is minimised, and the nats without emphasis, which have no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, labels: Tensor, smoothing: float, emphasis: Emphasis | None
    ) -> tuple[Tensor, Tensor]:
        wanted = any(ctx.needs_input_grad[:2])
        if emphasis is None and cross_entropy.takes(states, weight):
            each, dstates, dweight = cross_entropy.linear_cross_entropy(states, weight, labels, smoothing, wanted)
            minimised, nats = each.sum(), each.sum()
        else:
            minimised, nats, dstates, dweight = _in_chunks(states, weight, labels, smoothing, emphasis, wanted)
        if dstates is not None and dweight is not None:
            if smoothing:
                _spread_evenly(states, weight, labels, smoothing, emphasis, dstates, dweight)
            ctx.found = (dstates, dweight.to(weight.dtype))
        ctx.mark_non_differentiable(nats)
        return minimised, nats

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        if ctx.found is None:
            raise RuntimeError("this loss has given its gradients: a second backward pass would find them changed")
        # Nothing else holds them: so they are scaled in place, and what a tied embedding adds to the matrix's is, too.
        (dstates, dweight), ctx.found = ctx.found, None
        if grads[0].device.type != "cpu" or grads[0] != 1:
            for each in (dstates, dweight):
                each.mul_(grads[0].to(each.dtype))
        return dstates, dweight, None, None, None


def _in_chunks(
    states: Tensor, weight: Tensor, labels: Tensor, smoothing: float, emphasis: Emphasis | None, wanted: bool
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """What is minimised, nats, and, where they are wanted, gradients but for the even share of the smoothing."""
    rows = chunk_rows(len(weight))
    minimised, nats = (torch.zeros((), dtype=torch.float32, device=states.device) for _ in range(2))
    dstates, dweight = torch.empty_like(states), None
    parts = max(1, -(-len(states) // rows))
    rows = max(1, -(-len(states) // parts // ROWS) * ROWS)  # alike
    room = _room(states, min(rows, len(states)), len(weight))
    for start in range(0, len(states), rows):
        x, y = states[start : start + rows], labels[start : start + rows]
        logits = torch.mm(x, weight.T, out=room[: len(x)])
        p, chunk_nats, chunk_minimised = _probabilities(logits, y, smoothing, emphasis)
        nats += chunk_nats
        minimised += chunk_minimised
        if wanted:
            torch.mm(p, weight, out=dstates[start : start + rows])
            part = p.T @ x
            dweight = part if dweight is None else dweight.float().add_(part)
    return minimised, nats, dstates if wanted else None, dweight


def _spread_evenly(
    states: Tensor,
    weight: Tensor,
    labels: Tensor,
    smoothing: float,
    emphasis: Emphasis | None,
    dstates: Tensor,
    dweight: Tensor,
) -> None:
    """Put the even share of every entry, smoothing / size, into the gradients, without a pass over the logits."""
    even, real = smoothing / len(weight), (labels != IGNORED)[:, None]
    if emphasis is not None and emphasis.weights is not None:
        real = (emphasis.weights[labels.clamp(min=0)][:, None] * real).to(states.dtype)
    dstates -= even * weight.sum(0, dtype=torch.float32).to(weight.dtype) * real
    shift = even * (states * real).sum(0, dtype=torch.float32)
    for part in dweight.split(SHIFTED):
        part.copy_(part.float() - shift)


_kept = threading.local()


def _room(like: Tensor, rows: int, size: int) -> Tensor:
    """Room for logits (rows, size); a thread that trains on a CPU keeps it: fresh pages are cleared first."""
    room: Tensor | None = getattr(_kept, "room", None)
    if room is None or room.dtype != like.dtype or room.numel() < rows * size or room.device != like.device:
        room = like.new_empty(rows * size)
        if like.device.type == "cpu" and like.dtype == torch.bfloat16:
            _kept.room = room
    return room[: rows * size].view(rows, size)


def _probabilities(
    logits: Tensor, labels: Tensor, smoothing: float, emphasis: Emphasis | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient by the logits (rows, vocabulary) but for the even share of the smoothing; nats without, with emphasis.

    Both are summed. Rows whose label is IGNORED have none of all that. The gradient may take the logits' place.
    """
    if emphasis is None and kernels.takes(logits):
        total = kernels.cross_entropy_(logits, labels, smoothing).sum()
        return logits, total, total
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
    total = minimised = nats[real].sum()
    at_label = smoothing - others
    if emphasis is not None:
        emphasised, scale, at_label = _emphasised(emphasis, y, nats, log_p, others, smoothing)
        minimised = emphasised[real].sum()
        p *= scale[:, None].to(p.dtype)
    p[each, y] = at_label.to(p.dtype)
    p[(~real).nonzero().squeeze(1)] = 0
    return p, total, minimised


def _emphasised(
    emphasis: Emphasis, y: Tensor, nats: Tensor, log_p: Tensor, others: Tensor, smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row: nats with emphasis, what scales its gradient by the other logits, and that by the label's logit.

    With w = weight, s = smoothing, f = (1 − p)^focal: the loss is w·((1 − s)·f·(−ln p) + s·evenly), its gradient by
    the logits r·p − (r − w·s)·[the label] − w·s / size, where r = w·((1 − s)·(f − ln p · p · −df/dp) + s).
    """
    weight = torch.ones_like(log_p) if emphasis.weights is None else emphasis.weights[y]
    factor, slope = torch.ones_like(log_p), torch.zeros_like(log_p)
    if emphasis.focal:
        others = others.clamp(min=LEAST, max=1)
        factor = others**emphasis.focal
        slope = -log_p * (1 - others) * emphasis.focal * others ** (emphasis.focal - 1)
    scale = weight * ((1 - smoothing) * (factor + slope) + smoothing)
    return weight * (nats + (1 - smoothing) * (1 - factor) * log_p), scale, weight * smoothing - scale * others


def linear_cross_entropy(states: Tensor, weight: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Summed nats of labels (tokens,) under softmax(states (tokens, d_model) @ weight.T (d_model, vocabulary)).

    Labels that are IGNORED do not count; only as many of their states as make up a multiple of ROWS are looked at.
    `smoothing` spreads that share of the target's probability evenly over the vocabulary (Szegedy et al. 2016).
    """
    return emphasised_cross_entropy(states, weight, labels, smoothing)[0]


def emphasised_cross_entropy(
    states: Tensor, weight: Tensor, labels: Tensor, smoothing: float = 0.0, emphasis: Emphasis | None = None
) -> tuple[Tensor, Tensor]:
    """(what is minimised, the nats of `linear_cross_entropy`, without a gradient): without emphasis the same."""
    real = labels != IGNORED
    if not bool(real.all()):
        count = -(-int(real.sum()) // ROWS) * ROWS
        chosen = (~real).to(torch.uint8).argsort(stable=True)[:count]
        states, labels = states[chosen], labels[chosen]
    minimised, nats = _LinearCrossEntropy.apply(states, weight, labels, smoothing, emphasis)
    return minimised, nats
