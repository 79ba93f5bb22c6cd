"""What the first step of a training would do, measured on one batch: gradients, and what the optimizer makes of them.

The step is taken on copies of the weights; the network is afterwards as before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sourcewise.config import TrainConfig
from sourcewise.data.batches import Batch
from sourcewise.diagnosis.borrowing import borrowed
from sourcewise.model.network import Seq2Seq
from sourcewise.model.parts import OTHER
from sourcewise.training.freezing import freeze
from sourcewise.training.objective import Objective
from sourcewise.training.optimizer import MasterAdamW


@dataclass(frozen=True, slots=True)
class Weight:
    """One tensor of a network in the first step; figures are root mean squares over its entries."""

    name: str
    size: int
    value: float
    learns: bool  # before the recipe froze anything
    frozen: bool  # by the recipe
    gradient: float | None = None  # of the loss in nats a target token, clipped; None: the loss does not depend on it
    optimised: bool = False  # whether the optimizer has it
    update: float = 0.0  # by one step at the peak learning rate
    part: str = OTHER  # of the network that it belongs to, as `train.freeze` names them
    layer: tuple[str, int] | None = None  # the stack and the place in it; None for what is in no stack


@dataclass(frozen=True, slots=True)
class FirstStep:
    """All tensors, the loss in nats a target token, and the norm of the gradient before clipping."""

    weights: tuple[Weight, ...]
    loss: float
    norm: float


def measure_first_step(network: Seq2Seq, batch: Batch, train: TrainConfig, unknown: int | None = None) -> FirstStep:
    """One optimizer step at the peak learning rate, as the trainer takes it, but without dropout.

    `unknown` is the tokenizer's <unk>. Raises RequestError where nothing learns.
    """
    with borrowed(network):
        learns = {f"network.{name}": p.requires_grad for name, p in network.named_parameters()}
        freeze(network, train.freeze)
        options = train.model_copy(update={"word_dropout": 0.0})
        objective = Objective(network, options, unknown).to(network.device).eval()
        before = {name: p.detach().clone() for name, p in objective.named_parameters()}
        known = {id(info.parameter): (info.part, info.layer) for info in network.parts()}
        rows = []
        for name, p in objective.named_parameters():
            part, layer = known.get(id(p), (OTHER, None))
            learned = learns.get(name, True)
            frozen = learned and not p.requires_grad
            rows.append(Weight(name, p.numel(), _rms(p), learned, frozen, part=part, layer=layer))
        optimizer = MasterAdamW(objective, train, torch.float32)
        targets = batch.target_tokens
        with torch.enable_grad():
            minimised, nats = objective(batch.to(network.device))
            wanted = [(n, p) for n, p in objective.named_parameters() if p.requires_grad]
            found = _gradients(minimised / targets, [p for _, p in wanted])
        gradients = dict(zip((name for name, _ in wanted), found, strict=True))
        optimizer.add([gradients.get(name) for name in optimizer.names])
        norm = float(optimizer.step(train.learning_rate))
        clipped = min(1.0, train.clip / norm) if train.clip and norm > 0 and math.isfinite(norm) else 1.0
        stepped = {id(p) for group in optimizer.adamw.param_groups for p in group["params"]}
        pairs = zip(optimizer.names, optimizer.masters, strict=True)
        optimised = {name for name, master in pairs if id(master) in stepped}
        after = dict(objective.named_parameters())
        weights = tuple(
            replace(
                row,
                gradient=None if (g := gradients.get(row.name)) is None else _rms(g) * clipped,
                optimised=row.name in optimised,
                update=_rms(after[row.name].detach() - before[row.name]),
            )
            for row in rows
        )
        return FirstStep(weights, float(nats) / targets, norm)


def layers(weights: Iterable[Weight]) -> dict[str, list[float]]:
    """By stack, the gradient of each layer (root mean square over all its learning tensors), first layer first."""
    sums: dict[tuple[str, int], tuple[float, int]] = {}
    for weight in weights:
        if weight.layer is not None and weight.gradient is not None:
            square, size = sums.get(weight.layer, (0.0, 0))
            sums[weight.layer] = square + weight.size * weight.gradient**2, size + weight.size
    found: dict[str, list[float]] = {}
    for stack, depth in sorted(sums):
        square, size = sums[stack, depth]
        found.setdefault(stack, []).append(math.sqrt(square / size))
    return found


def counted(rows: Sequence[Weight], all_rows: Sequence[Weight]) -> str:
    """'encoder, bridge (52 tensors, 1,234 weights, 61 %)'; up to two tensors by name."""
    names = [w.name.removeprefix("network.") for w in rows]
    said = ", ".join(names if len(names) <= 2 else dict.fromkeys(w.part for w in rows))
    size, total = sum(w.size for w in rows), sum(w.size for w in all_rows)
    return f"{said} ({len(rows)} tensors, {size:,} weights, {100 * size / total:.3g} % of all)"


def _gradients(loss: Tensor, parameters: Sequence[Tensor]) -> Sequence[Tensor | None]:
    if not loss.requires_grad:
        return [None] * len(parameters)
    return torch.autograd.grad(loss, parameters, allow_unused=True)


def _rms(tensor: Tensor) -> float:
    return float(tensor.detach().float().square().mean().sqrt())
