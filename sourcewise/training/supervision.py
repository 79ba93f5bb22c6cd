"""Cross-attention that is told where to look: near the diagonal, and at the source."""

from __future__ import annotations

import torch
from torch import Tensor

from sourcewise.data.batches import IGNORED, Batch
from sourcewise.errors import RequestError
from sourcewise.model.network import Seq2Seq
from sourcewise.model.protocol import Pass

LEAST_MASS = 1e-6  # of attention: its logarithm is taken


def check_supervised(network: Seq2Seq, guided: float, mass: float) -> None:
    """Raises RequestError where a network has no attention to supervise, or no slots in time to guide it along."""
    key = "train.guided_attention" if guided else "train.attention_mass"
    if (guided or mass) and not network.attends:
        raise RequestError(f"{key}: this network has no attention over its source; set 0")
    if guided and network.bridge is not None and network.bridge.spans(1) is None:
        raise RequestError(f"{key}: the bridge's slots are not places in time, no order is there to follow; set 0")


def supervision(network: Seq2Seq, given: Pass, guided: tuple[float, float], mass: float) -> Tensor:
    """What attention off its way costs, summed over target tokens: one more decoder pass, for its weights.

    `guided` is (weight, width g).
    """
    weights, labels = network.cross_attention(given.tokens, given.memory), given.labels
    assert weights is not None
    slots = source_slots(given.memory.mask, given.batch)
    total = torch.zeros((), device=labels.device)
    if guided[0]:
        total = total + guided[0] * off_diagonal(weights, slots, labels != IGNORED, guided[1])
    if mass:
        total = total + mass * mass_elsewhere(weights, slots, labels != IGNORED)
    return total


def source_slots(mask: Tensor, batch: Batch) -> Tensor:
    """(batch, slots) bool: the slots of the source itself, without those of a prompt beside features."""
    slots = mask.clone()
    slots[:, : batch.source.prompt] = False
    return slots


def off_diagonal(weights: Tensor, slots: Tensor, real: Tensor, width: float) -> Tensor:
    """Σ over target tokens n and slots t of A(n, t) · (1 − exp(−(n/N − t/T)² / 2g²)) (Tachibana et al. 2017, 4.1).

    `weights` (layers, batch, heads, time, slots) are averaged over layers and heads; `slots` (batch, slots) and `real`
    (batch, time) say which of N tokens and T slots count; places are those of their middles. For sources and targets
    that say the same in the same order.
    """
    target, source = (_places(there)[:, :, None] for there in (real, slots))
    cost = 1 - torch.exp(-((target - source.transpose(1, 2)) ** 2) / (2 * width**2))
    cost = cost * slots[:, None] * real[:, :, None]
    return (weights.float().mean((0, 2)) * cost).sum()


def _places(there: Tensor) -> Tensor:
    """(batch, n) bool → where along the whole each is, 0 to 1."""
    counts = there.sum(1, keepdim=True).clamp(min=1)
    return (there.cumsum(1) - 0.5) / counts


def mass_elsewhere(weights: Tensor, slots: Tensor, real: Tensor) -> Tensor:
    """−ln of the share of the attention that falls on the source, summed over target tokens, averaged over heads.

    Zero where a softmax is over nothing else; a decoder-only network looks at its own past too, and one with a prompt
    beside features at the prompt.
    """
    on_source = (weights.float() * slots[None, :, None, None]).sum(-1).clamp(min=LEAST_MASS)
    return -(on_source.log().mean((0, 2)) * real).sum()
