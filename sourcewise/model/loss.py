"""Cross-entropy of a linear projection in chunks, so that not all logits are in memory at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sourcewise.data.batches import IGNORED
from sourcewise.runtime.device import is_host

CHUNK_LOGITS = 80_000_000  # logits in memory at a time: 160 MB in bf16
ROWS = 64  # rows are a multiple of this: a product of a new shape costs more than a few idle rows
SHIFTED = 2048  # rows of the vocabulary's gradient shifted at a time
LEAST = 1e-30  # smaller probabilities of the softmax are too imprecise for a logarithm


@dataclass(frozen=True, slots=True)
class Emphasis:
    """Emphasis of target tokens: a weight (vocabulary,) float32, times (1 − p)^focal (Lin et al. 2017).

    The evenly spread share of label smoothing has the token's weight, but no focal factor.
    """

    weights: Tensor | None = None
    focal: float = 0.0


class LinearCrossEntropy(nn.Module):
    """The loss of the projection to the vocabulary.

    Native code sets its fields to faster functions. Values are not read from a device unless it is `at_hand`.
    """

    at_hand = False  # whether values can be read without waiting, since they are in the host's memory
    # Allocates (rows, vocabulary) for logits, with dtype and device of the states.
    room: Callable[[Tensor, int, int], Tensor] = staticmethod(lambda like, rows, size: like.new_empty(rows, size))
    # Logits, labels, smoothing → summed nats; the gradient overwrites the logits. Without emphasis; None: unsupported.
    whole_rows: Callable[[Tensor, Tensor, float], Tensor | None] = staticmethod(lambda logits, labels, smoothing: None)
    # Logits of two passes → ½ (KL(p ‖ q) + KL(q ‖ p)), summed; its gradients overwrite them. None: unsupported.
    two_rows: Callable[[Tensor, Tensor], Tensor | None] = staticmethod(lambda first, second: None)
    # States, weight, labels, smoothing, whether gradients are needed → nats and gradients; None: unsupported.
    whole: Callable[..., tuple[Tensor, Tensor | None, Tensor | None] | None] = staticmethod(lambda *given: None)

    def forward(
        self,
        states: Tensor,
        weight: Tensor | None,
        labels: Tensor,
        smoothing: float = 0.0,
        emphasis: Emphasis | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Summed nats of labels (tokens,) under softmax(states (tokens, d_model) @ weight.T (d_model, vocabulary)).

        Without a weight the states are the logits (tokens, vocabulary) themselves.
        Returns the minimised loss, and the nats without emphasis, which have no gradient. IGNORED labels do not count;
        of their states only as many are computed as fill a multiple of ROWS, if labels are on the host.
        `smoothing` spreads that share of the target's probability evenly over the vocabulary (Szegedy et al. 2016).
        """
        if weight is None:
            return of_logits(states, labels.to(states.device, non_blocking=True), smoothing, emphasis)
        real = labels != IGNORED
        count = int(real.sum()) if is_host(labels.device) else None
        if count is not None and count < len(labels):
            chosen = (~real).to(torch.uint8).argsort(stable=True)[: -(-count // ROWS) * ROWS]
            states = states[chosen.to(states.device, non_blocking=True)]
            labels = labels[chosen]
        labels = labels.to(states.device, non_blocking=True)
        minimised, nats = _LinearCrossEntropy.apply(states, weight, labels, count, smoothing, emphasis, self)
        return minimised, nats


def of_logits(
    logits: Tensor, labels: Tensor, smoothing: float = 0.0, emphasis: Emphasis | None = None
) -> tuple[Tensor, Tensor]:
    """The same loss of logits (tokens, vocabulary) that exist already: minimised, and nats without emphasis."""
    real, y = labels != IGNORED, labels.clamp(min=0)
    log_probabilities = logits.float().log_softmax(-1)
    log_p = log_probabilities.gather(1, y[:, None]).squeeze(1)
    evenly = -smoothing * log_probabilities.mean(-1) if smoothing else torch.zeros_like(log_p)
    nats = evenly - (1 - smoothing) * log_p
    if emphasis is None:
        total = nats.masked_fill(~real, 0).sum()
        return total, total.detach()
    weight = torch.ones_like(log_p) if emphasis.weights is None else emphasis.weights[y]
    factor = (1 - log_p.exp()).clamp(min=LEAST) ** emphasis.focal if emphasis.focal else 1.0
    emphasised = weight * (evenly - (1 - smoothing) * factor * log_p)
    return emphasised.masked_fill(~real, 0).sum(), nats.masked_fill(~real, 0).sum().detach()


def chunk_rows(vocabulary: int) -> int:
    """Number of rows of logits in memory at a time."""
    return max(ROWS, CHUNK_LOGITS // vocabulary // ROWS * ROWS)


class _LinearCrossEntropy(torch.autograd.Function):
    """Computes gradients in the forward pass, chunk by chunk (as Liger's fused kernel), so that no logits are stored.

    Probabilities have the logits' precision: the softmax is one pass, and the gradient would be rounded anyway. For
    likely labels, 1 − p is too imprecise in bf16, and summed from the other probabilities in fp32. The first `count`
    labels count; None: all that are not IGNORED.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        labels: Tensor,
        count: int | None,
        smoothing: float,
        emphasis: Emphasis | None,
        owner: LinearCrossEntropy,
    ) -> tuple[Tensor, Tensor]:
        wanted = any(ctx.needs_input_grad[:2])
        found = owner.whole(states, weight, labels, smoothing, wanted) if emphasis is None else None
        if found is not None:
            each, dstates, dweight = found
            minimised, nats = each.sum(), each.sum()
        else:
            chunks = _Chunks(weight, smoothing, emphasis, owner)
            minimised, nats, dstates, dweight = chunks.run(states, labels, count, wanted)
        if dstates is not None and dweight is not None:
            if smoothing:
                _spread_evenly(states, weight, labels, smoothing, emphasis, dstates, dweight)
            ctx.found = (dstates, dweight.to(weight.dtype))
        ctx.at_hand = owner.at_hand
        ctx.mark_non_differentiable(nats)
        return minimised, nats

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.found is None:
            raise RuntimeError("this loss has given its gradients: a second backward pass would find them changed")
        # Nothing else uses the gradients, so they are scaled in place; a tied embedding may add to the matrix's later.
        (dstates, dweight), ctx.found = ctx.found, None
        if not ctx.at_hand or grads[0] != 1:
            for each in (dstates, dweight):
                each.mul_(grads[0].to(each.dtype))
        return dstates, dweight, None, None, None, None, None


@dataclass(frozen=True, slots=True)
class _Chunks:
    """The loss in chunks of rows."""

    weight: Tensor
    smoothing: float
    emphasis: Emphasis | None
    owner: LinearCrossEntropy

    def run(
        self, states: Tensor, labels: Tensor, count: int | None, wanted: bool
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Minimised loss, nats, and, if wanted, gradients without the even share of label smoothing."""
        weight, size, total = self.weight, len(self.weight), len(states)
        minimised, nats = (torch.zeros((), dtype=torch.float32, device=states.device) for _ in range(2))
        dstates, dweight = torch.empty_like(states), None
        parts = max(1, -(-total // chunk_rows(size)))
        rows = max(1, -(-total // parts // ROWS) * ROWS)  # of equal size
        room = self.owner.room(states, min(rows, total), size)
        for start in range(0, total, rows):
            x, y = states[start : start + rows], labels[start : start + rows]
            logits = torch.mm(x, weight.T, out=room[: len(x)])
            real = y != IGNORED if count is None else min(max(count - start, 0), len(x))
            p, chunk_nats, chunk_minimised = self._probabilities(logits, y, real)
            nats += chunk_nats
            minimised += chunk_minimised
            if wanted:
                torch.mm(p, weight, out=dstates[start : start + rows])
                part = p.T @ x
                dweight = part if dweight is None else dweight.float().add_(part)
        if wanted and dweight is None:  # no label counts
            dweight = torch.zeros_like(weight)
        return minimised, nats, dstates if wanted else None, dweight

    def _probabilities(self, logits: Tensor, labels: Tensor, real: int | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient of the logits (rows, vocabulary) without the smoothing's even share, nats without and with emphasis.

        Both nats are sums, of the first `real` rows, or of those where it (rows,) is true. The gradient may overwrite
        the logits.
        """
        smoothing = self.smoothing
        nats = self.owner.whole_rows(logits, labels, smoothing) if self.emphasis is None else None
        if nats is not None:
            return logits, nats, nats
        each, y = torch.arange(len(labels), device=labels.device), labels.clamp(min=0)
        p = torch.softmax(logits, dim=-1)
        likely = p[each, y].float()
        p[each, y] = 0
        others = p.sum(-1).float()  # summed in fp32, rounded once
        log_p = torch.where(likely > 0.5, torch.log1p(-others), likely.log())
        if not self.owner.at_hand or bool((likely < LEAST).any()):  # floats so small are imprecise, or zero
            below = logits[each, y].float() - logits.float().logsumexp(-1)
            log_p = torch.where(likely < LEAST, below, log_p)
        nats = -(1 - smoothing) * log_p
        if smoothing:  # Σ ln p over the vocabulary = Σ logits − size · logsumexp
            normaliser = logits[each, y].float() - log_p
            nats = nats - smoothing * (logits.sum(-1).float() / logits.shape[1] - normaliser)
        total = minimised = _sum(nats, real)
        at_label = smoothing - others
        if self.emphasis is not None:
            emphasised, scale, at_label = _emphasised(self.emphasis, y, nats, log_p, others, smoothing)
            minimised = _sum(emphasised, real)
            p *= scale[:, None].to(p.dtype)
        p[each, y] = at_label.to(p.dtype)
        if isinstance(real, int):
            p[real:] = 0
        else:
            p *= real[:, None].to(p.dtype)
        return p, total, minimised


def _sum(nats: Tensor, real: int | Tensor) -> Tensor:
    """The sum of the first `real` of nats (rows,), or of those where it is true."""
    return nats[:real].sum() if isinstance(real, int) else nats.masked_fill(~real, 0).sum()


def _spread_evenly(
    states: Tensor,
    weight: Tensor,
    labels: Tensor,
    smoothing: float,
    emphasis: Emphasis | None,
    dstates: Tensor,
    dweight: Tensor,
) -> None:
    """Add the even share of every entry, smoothing / size, to the gradients without a pass over the logits."""
    even, real = smoothing / len(weight), (labels != IGNORED)[:, None]
    if emphasis is not None and emphasis.weights is not None:
        real = (emphasis.weights[labels.clamp(min=0)][:, None] * real).to(states.dtype)
    dstates -= even * weight.sum(0, dtype=torch.float32).to(weight.dtype) * real
    shift = even * (states * real).sum(0, dtype=torch.float32)
    for part in dweight.split(SHIFTED):
        part.copy_(part.float() - shift)


def _emphasised(
    emphasis: Emphasis, y: Tensor, nats: Tensor, log_p: Tensor, others: Tensor, smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """For each row: nats with emphasis, factor of the gradient of other logits, and that of the label's logit.

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
