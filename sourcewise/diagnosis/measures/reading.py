"""How a trained network reads its sources: where its cross-attention looks, what its memory tells apart, which of its
target tokens gain from their source.

Nothing here knows more of a network than the protocol; what a network does not have is None.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sourcewise.data.batches import IGNORED, Batch, Budget, sorted_batches
from sourcewise.data.encoding import ExampleSet
from sourcewise.evaluation.source_bits import SourceBits, partners
from sourcewise.model.protocol import Network, shift_right, token_nats

ALIKE = 0.02  # distance of a memory's vectors from their mean, over their size, below which they are the same
OPEN = 0.5  # nats per token from which on there is something left to be read
MEASURED = (
    "Measured on 15 trained networks that read (T5, recurrent and decoder-only; digits, spoken digits, dates, "
    "Multi30k, conversations; from 30 steps to the end)"
)
FEWEST = 4  # slots, target tokens and examples from which on something can be told apart
MOST = 240  # examples whose tokens are measured


@dataclass(frozen=True, slots=True)
class Gaze:
    """Where the heads of all layers look, averaged over the examples of a batch; each figure 0 to 1."""

    moved: float  # of the head that moves most: how much of its weight is elsewhere than on average over the target
    fixed: float  # of the head that is least fixed: its weight on the one slot it reads most, over the target
    heads: int
    examples: int


@dataclass(frozen=True, slots=True)
class Distinct:
    """How far the vectors of a memory are apart: root mean square distance from their mean, over their own size."""

    examples: float  # the same slot of different examples
    slots: float  # different slots of an example
    rows: int


@dataclass(frozen=True, slots=True)
class Gains:
    """Nats of every target token with its own source and with another's: (examples, time), NaN where there is none."""

    own: np.ndarray
    other: np.ndarray
    lengths: np.ndarray  # (examples,) of the sources

    def bits(self, where: np.ndarray) -> SourceBits:
        """The source bits of the tokens `where` (examples, time) is true, of the examples that have some."""
        counted = where & ~np.isnan(self.own)
        rows = counted.any(1)
        own, other = (np.where(counted, nats, 0.0).sum(1)[rows] for nats in (self.own, self.other))
        return SourceBits(own, other, counted.sum(1)[rows].astype(np.float64))

    @property
    def places(self) -> np.ndarray:
        """(examples, time): from 0 on, the place of each token in its target."""
        return np.broadcast_to(np.arange(self.own.shape[1]), self.own.shape)


def said(bits: SourceBits) -> str:
    """Source bits with their interval, in words."""
    low, high = bits.ci95()
    return f"{bits.bits:.3f} bits ({low:.3f} to {high:.3f})" if math.isfinite(bits.bits) else "nothing known"


@torch.no_grad()
def measure_gaze(network: Network, batch: Batch) -> Gaze | None:
    """The cross-attention of a batch by teacher forcing; None where there is none, or nothing to choose from."""
    memory = network.encode(batch.source)
    labels = batch.labels.to(memory.mask.device)
    weights = network.cross_attention(shift_right(labels, network.start_id, network.pad_id), memory)
    if weights is None:
        return None
    real, slots = labels != IGNORED, memory.mask.sum(1)
    wide = ((real.sum(1) >= FEWEST) & (slots >= FEWEST)).nonzero()[:, 0].tolist()
    moved, fixed = [], []
    for row in wide:
        seen = weights[:, row][:, :, real[row]].flatten(0, 1)  # (heads of all layers, time, slots)
        seen = seen / seen.sum(-1, keepdim=True).clamp(min=1e-9)  # a decoder-only network reads its target as well
        usual = seen.mean(1, keepdim=True)
        moved.append((seen - usual).abs().sum(-1).mean(-1) / 2)
        fixed.append(usual.amax(-1)[:, 0])
    if not wide:
        return None
    of_heads = torch.stack(moved).mean(0), torch.stack(fixed).mean(0)
    return Gaze(float(of_heads[0].max()), float(of_heads[1].min()), of_heads[0].numel(), len(wide))


@torch.no_grad()
def measure_memory(network: Network, batch: Batch) -> Distinct | None:
    """How far the vectors of a batch's memory are apart; None where it has none, or too few."""
    memory: Any = network.encode(batch.source)
    states = getattr(memory, "states", None)
    if not isinstance(states, Tensor) or len(states) < FEWEST:
        return None
    states, real = states.float(), memory.mask[..., None].float()
    beside, along = _apart(states, real, 0), _apart(states, real, 1)
    return None if beside is None or along is None else Distinct(beside, along, len(states))


def _apart(states: Tensor, real: Tensor, dim: int) -> float | None:
    """Distance from the mean along a dimension, over the vectors' size; of places where `FEWEST` are real."""
    count = real.sum(dim, keepdim=True)
    mean = (states * real).sum(dim, keepdim=True) / count.clamp(min=1)
    counted = real * (count >= FEWEST)
    size = float((states.square() * counted).sum())
    if not float(counted.sum()):
        return None
    return (float(((states - mean).square() * counted).sum()) / size) ** 0.5 if size else 0.0


@torch.inference_mode()
def measure_gains(network: Network, encoded: ExampleSet, batch_tokens: int = 8192) -> Gains | None:
    """The nats of up to `MOST` examples' tokens, spread over the set; None where no two sources differ."""
    chosen = encoded.select(np.linspace(0, len(encoded) - 1, min(MOST, len(encoded))).astype(int).tolist())
    other = partners(chosen)
    known = np.flatnonzero(other >= 0)
    if len(known) < FEWEST:
        return None
    longest = max(len(ids) for ids in chosen.targets)  # labels that do not count among them
    own, theirs = (np.full((len(chosen), longest), np.nan) for _ in range(2))
    lengths = chosen.source_lengths, chosen.target_lengths
    for places in sorted_batches(lengths[0][known], lengths[1][known], Budget(batch_tokens)):
        rows = known[places]
        batch = chosen.batch(rows)
        labels = batch.labels.to(network.device)
        real = (batch.labels != IGNORED).numpy()
        for source, found in ((batch.source, own), (chosen.source(other[rows]), theirs)):
            nats = token_nats(network, network.encode(source), labels).cpu().double().numpy()
            found[rows, : nats.shape[1]] = np.where(real, nats, np.nan)
    return Gains(own[known], theirs[known], lengths[0][known])
