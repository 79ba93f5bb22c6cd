"""Auxiliary losses on cross-attention: guided (diagonal) attention, and attention mass on the source."""

from __future__ import annotations

import torch
from torch import Tensor

from sourcewise.data.batches import IGNORED
from sourcewise.errors import RequestError
from sourcewise.model.network import Seq2Seq
from sourcewise.model.protocol import Pass

LEAST_MASS = 1e-6  # lower bound of the attention mass before its logarithm


def check_supervised(network: Seq2Seq, guided: float, mass: float) -> None:
    """Raises RequestError if a network has no attention to supervise, or its memory positions have no order in time."""
    key = "train.guided_attention" if guided else "train.attention_mass"
    if (guided or mass) and not network.attends:
        raise RequestError(f"{key}: this network has no attention over its source; set 0")
    if guided and network.bridge is not None and network.bridge.spans(torch.zeros(1, network.dims)) is None:
        raise RequestError(f"{key}: the bridge's slots are not places in time, no order is there to follow; set 0")


def supervision(network: Seq2Seq, given: Pass, guided: tuple[float, float], mass: float) -> Tensor:
    """The losses on attention, summed over target tokens; takes one more decoder pass for the weights.

    `guided` is (weight, width g).
    """
    weights, labels = network.cross_attention(given.tokens, given.memory), given.labels
    assert weights is not None
    slots = given.memory.mask.clone()  # (batch, positions): the source itself, no prompt beside features
    slots[:, : given.batch.source.prompt] = False
    total = torch.zeros((), device=labels.device)
    if guided[0]:
        total = total + guided[0] * off_diagonal(weights, slots, labels != IGNORED, guided[1])
    if mass:
        total = total + mass * mass_elsewhere(weights, slots, labels != IGNORED)
    return total


def off_diagonal(weights: Tensor, slots: Tensor, real: Tensor, width: float) -> Tensor:
    """Σ over target tokens n and positions t of A(n, t) · (1 − exp(−(n/N − t/T)² / 2g²)) (Tachibana et al. 2017, 4.1).

    `weights` (layers, batch, heads, time, positions) are averaged over layers and heads; `slots` (batch, positions) and
    `real` (batch, time) are true for the T positions and N tokens that count, which are placed at their middles. For
    sources and targets with the same order.
    """
    target, source = (_places(there)[:, :, None] for there in (real, slots))
    cost = 1 - torch.exp(-((target - source.transpose(1, 2)) ** 2) / (2 * width**2))
    cost = cost * slots[:, None] * real[:, :, None]
    return (weights.float().mean((0, 2)) * cost).sum()


def _places(there: Tensor) -> Tensor:
    """(batch, n) bool → relative position of each along the sequence, 0 to 1."""
    counts = there.sum(1, keepdim=True).clamp(min=1)
    return (there.cumsum(1) - 0.5) / counts


def mass_elsewhere(weights: Tensor, slots: Tensor, real: Tensor) -> Tensor:
    """−ln of the attention mass on the source, summed over target tokens, averaged over heads.

    Zero if the softmax covers only the source; a decoder-only network also attends to earlier target tokens, and one
    with a prompt beside features to the prompt.
    """
    on_source = (weights.float() * slots[None, :, None, None]).sum(-1).clamp(min=LEAST_MASS)
    return -(on_source.log().mean((0, 2)) * real).sum()
