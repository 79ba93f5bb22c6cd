"""What the first step of a training would do, measured on one batch: gradients, and what the optimizer makes of them.

The step is taken on copies of the weights; the network is afterwards as before.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sourcewise.data.batches import Batch
from sourcewise.diagnosis.borrowing import borrowed
from sourcewise.diagnosis.measures.freshness import is_drawn
from sourcewise.model.parts import ParameterInfo
from sourcewise.model.protocol import Network

ADAPTER = re.compile(r"\.lora_|\.parametrizations\.weight\.\d+\.(down|up)\.")  # names of adapters: peft's, and ours


@dataclass(frozen=True, slots=True)
class Stepped:
    """A tensor as an optimizer is to step it: how fast at the peak, in units of an Adam's step."""

    info: ParameterInfo
    learns: bool = True  # before the plan of the training froze anything
    frozen: bool = False  # by that plan, for all of its steps; so it is, too, where it learns but has no gradient
    rate: float | None = None  # None: the optimizer does not have it; 0: it may step it anyhow
    decay: float = 0.0  # of the weights, times the rate
    epsilon: float = 1e-8


@dataclass(frozen=True, slots=True)
class Optimizer:
    """What a training steps, by what loss (to be minimised, and in nats; both summed), and at which norm it clips."""

    weights: Sequence[Stepped]
    objective: Callable[[Batch], tuple[Tensor, Tensor]]
    clip: float  # 0: never


@dataclass(frozen=True, slots=True)
class Weight:
    """One tensor of a network in the first step; figures are root mean squares over its entries."""

    name: str
    size: int
    value: float
    learns: bool  # before the recipe froze anything
    frozen: bool  # by the recipe
    gradient: float | None = None  # of the loss in nats per target token, clipped; None: the loss does not depend on it
    optimised: bool = False  # whether the optimizer has it
    update: float = 0.0  # by one step at the peak learning rate
    part: str = "other"  # of the network that it belongs to, as `train.freeze` names them
    layer: tuple[str, int] | None = None  # the stack and the place in it; None for what is in no stack
    matrix: bool = False  # whether it is one, or has more dimensions
    width: int = 0  # numbers that each output of a matrix is a sum of
    drawn: bool = False  # whether it is a frozen matrix that looks as it was drawn, or one that has a rate of 0
    still: bool = False  # whether its optimizer has a rate of 0 for it, and a higher one for others
    mean: float = 0.0  # of its entries


@dataclass(frozen=True, slots=True)
class FirstStep:
    """All tensors, the loss in nats per target token, and the norm of the gradient before clipping."""

    weights: tuple[Weight, ...]
    loss: float
    norm: float


def measure_first_step(network: Network, batch: Batch, optimizer: Callable[[], Optimizer]) -> FirstStep:
    """Gradients of a batch, and the updates that Adam's first step makes of them (Kingma & Ba 2015).

    The optimizer is made where the weights are copies. Raises RequestError where nothing learns.
    """
    with borrowed(network), torch.enable_grad():
        made = optimizer()
        targets = batch.target_tokens
        minimised, nats = made.objective(batch.to(network.device))
        learning = [w.info.parameter for w in made.weights if w.info.parameter.requires_grad]
        pairs = zip(learning, _gradients(minimised / targets, learning), strict=True)
        gradients = {id(p): gradient for p, gradient in pairs if gradient is not None}
        norm = float(torch.nn.utils.get_total_norm(list(gradients.values())))
        clipped = min(1.0, made.clip / norm) if made.clip and norm > 0 and math.isfinite(norm) else 1.0
        weights = tuple(_stepped(w, gradients.get(id(w.info.parameter)), clipped) for w in made.weights)
        return FirstStep(weights, float(nats.detach()) / targets, norm)


@torch.no_grad()
def _stepped(weight: Stepped, gradient: Tensor | None, clipped: float) -> Weight:
    """Its figures, by the gradient before it is `clipped` by this factor."""
    info, update = weight.info, 0.0
    if gradient is not None:
        gradient = gradient.float() * clipped
        if weight.rate and bool(gradient.isfinite().all()):
            step = gradient / (gradient.abs() + weight.epsilon) + weight.decay * info.parameter.float()
            update = weight.rate * _rms(step)
    return Weight(
        info.name,
        info.parameter.numel(),
        _rms(info.parameter),
        weight.learns,
        frozen=weight.learns and (weight.frozen or not info.parameter.requires_grad),
        drawn=(weight.frozen or weight.rate is None or not info.parameter.requires_grad) and is_drawn(info.parameter),
        gradient=None if gradient is None else _rms(gradient),
        optimised=weight.rate is not None,
        update=update,
        part=info.part,
        layer=info.layer,
        matrix=info.parameter.ndim > 1,
        width=width_of(info.parameter),
        mean=float(info.parameter.float().mean()) if info.parameter.numel() else 0.0,
    )


def width_of(parameter: Tensor) -> int:
    """Numbers that each output of a matrix (out, in, …) is a sum of; 0 for a vector."""
    return parameter[0].numel() if parameter.ndim > 1 and len(parameter) else 0


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


def adapted(weights: Iterable[Weight]) -> bool:
    """Whether adapters learn, beside weights that were trained before."""
    return any(ADAPTER.search(w.name) and w.learns for w in weights)


def counted(rows: Sequence[Weight], all_rows: Sequence[Weight]) -> str:
    """'encoder, bridge (52 tensors, 1,234 weights, 61 %)'; up to two tensors by name."""
    names = [w.name for w in rows]
    said = ", ".join(names if len(names) <= 2 else dict.fromkeys(w.part for w in rows))
    size, total = sum(w.size for w in rows), sum(w.size for w in all_rows)
    return f"{said} ({len(rows)} tensors, {size:,} weights, {100 * size / total:.3g} % of all)"


def _gradients(loss: Tensor, parameters: Sequence[Tensor]) -> Sequence[Tensor | None]:
    if not loss.requires_grad:
        return [None] * len(parameters)
    return torch.autograd.grad(loss, parameters, allow_unused=True)


def _rms(tensor: Tensor) -> float:
    return float(tensor.detach().float().square().mean().sqrt())
