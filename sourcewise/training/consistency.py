"""R-Drop: two passes over a batch, with other units dropped, shall predict the same (Liang et al. 2021).

For a target token whose distributions are p and q in the two passes, with the weight α of the paper, it is

    ½ (−ln p(y) − ln q(y)) + α / 2 · ½ (KL(p ‖ q) + KL(q ‖ p))

which is half of the paper's loss: here the nats of a token count once, and not once for each pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sourcewise.data.batches import IGNORED
from sourcewise.errors import RequestError
from sourcewise.model.lora import LowRank
from sourcewise.model.loss import Emphasis, LinearCrossEntropy, chunk_rows
from sourcewise.model.network import Seq2Seq
from sourcewise.model.protocol import Pass

CACHED_LOGITS = 100_000  # on a CPU: so many, with all that is made of them, stay in its cache


def check_dropped(network: Seq2Seq) -> None:
    """Raises RequestError if nothing is dropped in training, so that two passes would be equal."""
    shares = [getattr(network.body.config, name, None) for name in ("dropout", "attention_dropout")]
    for module in network.modules():
        shares += [module.p] if isinstance(module, nn.Dropout) else []
        shares += [module.dropout] if isinstance(module, LowRank) else []
    if not any(shares):
        raise RequestError("train.r_drop: nothing is dropped in this network, two passes are equal; set model.dropout")


def second_pass(
    network: Seq2Seq, given: Pass, weight: float, smoothing: float, emphasis: Emphasis | None = None
) -> Tensor:
    """What the loss above adds to ½ (−ln p(y)), summed over target tokens; `weight` is α."""
    labels = given.batch.labels
    states, matrix, flat = network.projection(given.tokens, network.read(given.batch.source), labels, padded=True)
    again, _ = network.cross_entropy(states, matrix, flat, smoothing, emphasis)
    real = (labels.cpu().flatten() != IGNORED).nonzero().squeeze(1).to(states.device, non_blocking=True)
    apart = divergence(given.states[real], states[real], matrix, network.cross_entropy)
    return 0.5 * again + 0.5 * weight * apart  # type: ignore[no-any-return]


def divergence(first: Tensor, second: Tensor, matrix: Tensor | None, owner: LinearCrossEntropy) -> Tensor:
    """½ (KL(p ‖ q) + KL(q ‖ p)) in nats, summed over rows.

    p and q are the softmax of `first` and `second` (rows, width) @ matrix.T (width, vocabulary); without a matrix, of
    the rows themselves. Logits are in memory in chunks of rows; gradients are found on the way. `owner` may do it in
    native code.
    """
    return _Divergence.apply(first, second, matrix, owner)  # type: ignore[no-any-return, no-untyped-call]


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, matrix: Tensor | None, owner: LinearCrossEntropy) -> Tensor:
        rows = chunk_rows(first.shape[1] if matrix is None else len(matrix))
        total = torch.zeros((), dtype=torch.float32, device=first.device)
        found = [torch.empty_like(first), torch.empty_like(second)]
        of_matrix = None if matrix is None else torch.zeros_like(matrix, dtype=torch.float32)
        for start in range(0, len(first), rows):
            pair = [states[start : start + rows] for states in (first, second)]
            logits = [x.clone() if matrix is None else x @ matrix.T for x in pair]
            native = owner.two_rows(*logits)
            total += _turn(*logits, cached=owner.at_hand) if native is None else native
            for x, slope, to in zip(pair, logits, found, strict=True):
                to[start : start + rows] = slope if matrix is None else slope @ matrix
                if of_matrix is not None:
                    of_matrix += slope.T @ x
        ctx.found = (*found, None if matrix is None or of_matrix is None else of_matrix.to(matrix.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.found is None:
            raise RuntimeError("this loss has given its gradients: a second backward pass would find them changed")
        found, ctx.found = ctx.found, None  # nothing else uses them, so they are scaled in place
        return (*(each if each is None else each.mul_(grads[0].to(each.dtype)) for each in found), None)


def _turn(first: Tensor, second: Tensor, *, cached: bool) -> Tensor:
    """Two (rows, vocabulary) of logits become the gradients of their divergence; its nats, summed.

    With g = ln p − ln q, the gradient of ½ Σ (p − q) g by the logits of p is ½ (p (g − KL(p ‖ q)) + p − q). Where it
    is `cached`, a few rows at a time, so that all that is made of them stays in the processor's cache.
    """
    rows = max(1, CACHED_LOGITS // first.shape[1]) if cached else max(1, len(first))
    total = torch.zeros((), dtype=torch.float32, device=first.device)
    for of_first, of_second in zip(first.split(rows), second.split(rows), strict=True):
        log_p, log_q = (each.float().log_softmax(-1) for each in (of_first, of_second))
        p, q, g = log_p.exp(), log_q.exp(), log_p - log_q
        forth, back = (p * g).sum(-1, keepdim=True), -(q * g).sum(-1, keepdim=True)
        of_first.copy_(0.5 * (p * (g - forth) + p - q))
        of_second.copy_(-0.5 * (q * (g + back) + p - q))
        total += 0.5 * (forth + back).sum()
    return total
