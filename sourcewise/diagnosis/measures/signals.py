"""What runs through a network before its first step: activations, gradients over time, noise; and can it learn at all?

All on fp32 copies of the weights; weights, modes and random states are afterwards as before.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sourcewise.data.batches import IGNORED, Batch
from sourcewise.data.encoding import ExampleSet
from sourcewise.diagnosis.borrowing import borrowed
from sourcewise.diagnosis.measures.wiring import LOGITS, SEED, fed
from sourcewise.model.blocks.recurrent_layers import RecurrentMemory
from sourcewise.model.network import Seq2Seq
from sourcewise.native.training.draws import dropout_seed

LONG = 4  # of the longest examples
FEWEST, SLOTS = 16, 1024  # of a source that are looked at
TRIAL_EXAMPLES, TRIAL_STEPS, TRIAL_RATE = 6, 40, 3e-3
Learning = Callable[[Batch, float], Iterator[float]]  # steps on a batch at a rate: the loss before each
TRIAL_FLOPS, TRIAL_SECONDS = 3e11, 4.0  # the seconds are those of the processor
MEASURED = (
    "Measured on 20 fresh networks (T5 tied, untied and 12 blocks deep, BART, GRU and LSTM with and without "
    "attention, decoder-only; digits through each bridge)"
)


@dataclass(frozen=True, slots=True)
class Fading:
    """The gradient of the loss by the vectors that enter, along the longest sources; root mean squares of eighths."""

    eighths: tuple[float, ...]  # from the beginning of a source to its end
    slots: int


def long_batch(encoded: ExampleSet) -> Batch:
    """The longest sources of a set, with their targets."""
    longest = np.argsort(-encoded.source_lengths, kind="stable")[:LONG]
    return encoded.batch(longest)


def measure_fading(network: Seq2Seq, batch: Batch) -> Fading | None:
    """Gradients along the sources; None where these are too short to tell."""
    with borrowed(network):
        batch = batch.to(network.device)
        with torch.no_grad():
            vectors, layout = network.embed(batch.source)
        if not FEWEST <= vectors.shape[1] <= SLOTS:
            return None
        vectors = vectors.detach().requires_grad_()
        body = network.body
        with torch.enable_grad():
            encode = body.bypass if network.bypassed(batch.source) else body.encode
            tokens = fed(batch.labels, network.start_id, network.pad_id)
            nats, _ = network.cross_entropy(*network.projection(tokens, encode(vectors, layout), batch.labels))
            found: Sequence[Tensor | None] = torch.autograd.grad(nats, [vectors], allow_unused=True)
        if found[0] is None:
            return None
        squares = (found[0] / batch.target_tokens).square().mean(-1)
        sums, counts = np.zeros(8), np.zeros(8)
        for row, real in zip(squares, layout.mask, strict=True):
            for eighth, part in enumerate(np.array_split(real.nonzero()[0], 8)):
                sums[eighth] += float(row[part].sum())
                counts[eighth] += len(part)
        return Fading(tuple(np.sqrt(sums / np.maximum(counts, 1)).tolist()), layout.longest)


@torch.no_grad()
def measure_activations(network: Seq2Seq, batch: Batch) -> dict[str, list[float]]:
    """By stack, the root mean square of what each block gives, first block first."""
    found: dict[tuple[str, int], float] = {}

    def note(stack: str, place: int, module: nn.Module, given: Any, out: Any = None) -> None:
        tensor = next(_tensors(given if out is None else out), None)
        if tensor is not None:
            found[stack, place] = float(tensor.float().square().mean().sqrt())

    with borrowed(network), ExitStack() as hooks:
        for stack, blocks in network.stacks.items():
            for place, block in enumerate(blocks):
                hooks.callback(block.register_forward_hook(partial(note, stack, place)).remove)
        batch = batch.to(network.device)
        network.decode(fed(batch.labels, network.start_id, network.pad_id), network.encode(batch.source))
    stacks: dict[str, list[float]] = {}
    for stack, place in sorted(found):
        stacks.setdefault(stack, []).append(found[stack, place])
    return stacks


@torch.no_grad()
def measure_noise(network: Seq2Seq, batch: Batch) -> float:
    """How alike two passes with dropout are: the correlation of their logits, 1 without dropout, 0 where it is all."""
    with borrowed(network):
        batch = batch.to(network.device)
        longest = max(2, LOGITS // (len(batch) * network.vocabulary))
        labels = batch.labels[:, :longest]
        tokens = fed(labels, network.start_id, network.pad_id)
        network.train()
        draws = []
        for seed in (SEED, SEED + 1):
            torch.manual_seed(seed)
            with dropout_seed(seed):
                logits = network.decode(tokens, network.encode(batch.source)).float()[labels != IGNORED]
            draws.append(logits - logits.mean(-1, keepdim=True))
        first, second = draws
        return float((first * second).sum() / (first.norm() * second.norm()).clamp(min=1e-12))


@torch.no_grad()
def bridge_slots(network: Seq2Seq, batch: Batch) -> int:
    """How many vectors of its longest source enter the body."""
    with borrowed(network):
        return network.embed(batch.source.to(network.device))[1].longest


@torch.no_grad()
def memory_slots(network: Seq2Seq, batch: Batch) -> int:
    """How many vectors of its longest source the decoder reads."""
    with borrowed(network):
        memory = network.encode(batch.source)
        if isinstance(memory, RecurrentMemory) and memory.keys is None:
            return 1  # it reads the one vector of all
        return int(memory.layout.longest)


@dataclass(frozen=True, slots=True)
class Trial:
    """One batch learnt by heart: losses in nats per target token before and after, and what frequencies alone give."""

    before: float
    after: float
    frequencies: float  # entropy of the batch's own target tokens
    falling: float  # by what share of itself the loss fell in the last quarter of the steps
    steps: int
    examples: int


def trial_flops(network: Seq2Seq, batch: Batch) -> float:
    """About what `learn_by_heart` costs: 6 FLOPs per parameter and position (Kaplan et al. 2020)."""
    positions = len(batch) * (int(batch.source.lengths.max()) + batch.labels.shape[1])
    return 6.0 * sum(p.numel() for p in network.parameters()) * positions * TRIAL_STEPS


def learn_by_heart(network: Seq2Seq, batch: Batch, learning: Learning) -> Trial | None:
    """Train a copy on one batch, without dropout and with a rate of its own: what is tried is the wiring.

    It ends when half of what frequencies alone give is reached. None where that takes longer than `TRIAL_SECONDS`.
    """
    real = batch.labels[batch.labels != IGNORED]
    shares = torch.bincount(real).float() / len(real)
    frequencies = float(-torch.xlogy(shares, shares).sum())
    started, losses = time.process_time(), []
    with borrowed(network), torch.enable_grad():
        for parameter in network.parameters():
            parameter.requires_grad_(parameter.is_floating_point())  # what is quantised cannot learn
        for loss in islice(learning(batch, TRIAL_RATE), TRIAL_STEPS):
            losses.append(loss)
            if loss <= 0.5 * frequencies or not math.isfinite(loss):
                break
            if time.process_time() - started > TRIAL_SECONDS:
                return None
    falling = 1 - losses[-1] / losses[-1 - len(losses) // 4]
    return Trial(losses[0], losses[-1], frequencies, falling, len(losses), len(batch))


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of a block's output, however it is wrapped."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif hasattr(value, "__slots__") or hasattr(value, "__dict__"):
        for name in getattr(value, "__slots__", None) or vars(value):
            yield from _tensors(getattr(value, name))
