"""Are the losses, gradients and weights of somebody else's training finite numbers?

What is kept of a step stays on the device until somebody asks: nobody waits for it at each step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sourcewise.data.batches import IGNORED

NAMED = 3  # tensors


@dataclass(frozen=True, slots=True)
class NotFinite:
    """The first step of several whose loss, or the norm of whose gradient, is no finite number."""

    step: int
    loss: float | None  # None: unknown
    norm: float | None
    unlabelled: int = 0  # rows of the batch whose loss it is, where no label of it counts

    @property
    def harmless(self) -> bool:
        """Whether the weights were not touched by it."""
        return self.norm is not None and math.isfinite(self.norm)


@dataclass(slots=True)
class Steps:
    """Losses and norms of gradients since somebody last asked."""

    losses: list[tuple[int, Tensor, int, Tensor]] = field(default_factory=list)  # step, loss, rows, labels that count
    norms: list[tuple[int, Tensor]] = field(default_factory=list)

    def loss(self, step: int, loss: Any, labels: Any) -> None:
        """Of a batch, with its labels (batch, time), where it has some."""
        if isinstance(loss, Tensor):
            known = isinstance(labels, Tensor) and labels.ndim > 0
            counted = (labels != IGNORED).sum() if known else torch.ones(())
            self.losses.append((step, loss.detach().float().mean(), len(labels) if known else 0, counted))

    def gradients(self, step: int, model: Any) -> None:
        """As they are before the optimizer's step."""
        found = [p.grad for p in model.parameters() if p.grad is not None]
        if found:
            self.norms.append((step, torch.nn.utils.get_total_norm(found).detach()))

    def logged(self, step: int, loss: float | None, norm: float) -> None:
        """What the Trainer itself logged of a step: the norm before it was clipped, the loss where nobody saw it."""
        if loss is not None:
            self.losses.append((step, torch.tensor(loss), 0, torch.ones(())))
        self.norms = [(of, kept) for of, kept in self.norms if of != step] + [(step, torch.tensor(norm))]

    def forget(self, step: int) -> None:
        """The gradient of a step that was not taken."""
        self.norms = [kept for kept in self.norms if kept[0] != step]

    def asked(self) -> list[NotFinite]:
        """What is not finite since somebody last asked, in order; waits for the device."""
        losses, norms = self.losses, self.norms
        self.losses, self.norms = [], []
        values, counts = _numbers([loss for _, loss, _, _ in losses]), _numbers([each for *_, each in losses])
        known = dict(zip((step for step, _ in norms), _numbers([norm for _, norm in norms]), strict=True))
        found: dict[int, NotFinite] = {}
        for (step, _, rows, _), value, count in zip(losses, values, counts, strict=True):
            if not math.isfinite(value):
                found.setdefault(step, NotFinite(step, value, known.get(step), 0 if count else rows))
        for step, norm in known.items():
            if not math.isfinite(norm) and step not in found:
                loss = [value for (of, *_), value in zip(losses, values, strict=True) if of == step]
                found[step] = NotFinite(step, sum(loss) / len(loss) if loss else None, norm)
        return [found[step] for step in sorted(found)]


def _numbers(tensors: list[Tensor]) -> list[float]:
    if not tensors:
        return []
    device = tensors[0].device
    return [float(x) for x in torch.stack([each.to(device).float() for each in tensors]).tolist()]


@torch.no_grad()
def broken_weights(model: Any, *, gradients: bool = False) -> str:
    """Which weights and buffers, or gradients, are not all finite: up to three names, and how many of how many."""
    named = [(name, p.grad if gradients else p.detach()) for name, p in model.named_parameters()]
    if not gradients:  # a buffer may hold infinity for what it has not seen, or bars
        named += [(name, b.detach().masked_fill(b.isinf(), 0)) for name, b in model.named_buffers()]
    return _named(named)


@torch.no_grad()
def broken_moments(model: Any, optimizer: Any) -> str:
    """The same of what an optimizer keeps of each parameter, such as Adam's moments; "" where it keeps nothing so."""
    state = getattr(optimizer, "state", None)
    if not isinstance(state, Mapping):
        return ""
    kept = [(name, state[p]) for name, p in model.named_parameters() if p in state]
    return _named(
        [
            (f"{what} of {name}", value)
            for name, each in kept
            if isinstance(each, Mapping)
            for what, value in each.items()
            if isinstance(value, Tensor)
        ]
    )


def local(tensor: Any) -> Any:
    """What this process holds of a tensor that is spread over several."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def half_of(model: Any, autocast: bool = False) -> str:
    """What of a model is float16, whose largest number is 65,504, in words; "" where nothing is."""
    kinds = [p.dtype for p in model.parameters()]
    count = sum(kind == torch.float16 for kind in kinds)
    if count:
        return f"{count} of {len(kinds)} weight tensors are float16"
    return "the forward pass is autocast to float16" if autocast else ""


def scales(optimizer: Any) -> bool:
    """Whether losses are scaled (fp16): steps that overflow are then left out, and the scale is lowered."""
    return getattr(optimizer, "scaler", None) is not None


def _named(named: Sequence[tuple[str, Tensor | None]]) -> str:
    held = [(name, None if p is None else local(p)) for name, p in named]
    known = [(name, p) for name, p in held if p is not None and p.is_floating_point() and p.numel()]
    sound = _numbers([p.isfinite().all() for _, p in known])
    names = [name for (name, _), whole in zip(known, sound, strict=True) if not whole]
    more = ", …" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more} ({len(names)} of {len(known)} tensors)" if names else ""
