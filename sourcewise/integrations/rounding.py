"""How many numbers of weights in half precision a step moves; the rest are rounded back to where they were."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from sourcewise.diagnosis.observed import Rounded
from sourcewise.integrations.finite import local

ENTRIES = 262_144  # of a tensor that are kept to see how far it moves
MOST = 8  # matrices, where all of them would take memory

Counted = tuple[str, Tensor, Tensor]  # the kind of numbers, how many moved, and how many have a gradient


def some(parameter: Any) -> Tensor:
    """Up to `ENTRIES` entries, in odd steps."""
    flat = local(parameter.detach()).flatten()
    return flat[:: max(1, flat.numel() // ENTRIES) | 1]


def is_half(parameter: Any) -> bool:
    """Whether it is a matrix in half precision."""
    return parameter.ndim > 1 and parameter.dtype in (torch.bfloat16, torch.float16)


def counted(parameter: Any, before: Tensor, gradient: Tensor) -> Counted:
    """Of a matrix, `some` of which were `before` a step; `gradient` is the same of its gradient."""
    has = gradient != 0
    return str(parameter.dtype).removeprefix("torch."), ((some(parameter) != before) & has).sum(), has.sum()


def rounded_of(found: Sequence[Counted], rate: float) -> Rounded | None:
    """Of all of them; None where there are none."""
    numbers = sum(int(of) for _, _, of in found)
    return Rounded(found[0][0], sum(int(moved) for _, moved, _ in found) / numbers, numbers, rate) if numbers else None


def later(before: Rounded | None, now: Rounded | None) -> Rounded | None:
    """Which of two looks tells: the one at the higher rate, the later where they are equal.

    A rate that falls to nothing in the end moves little then, and does little harm.
    """
    if before is None or now is None:
        return now or before
    return now if now.rate >= before.rate else before


class BeforeStep:
    """A few matrices in half precision, and their gradients, as they are before a step."""

    @torch.no_grad()
    def __init__(self, parameters: Iterable[Any]) -> None:
        half = [p for p in parameters if p.requires_grad and is_half(p) and p.grad is not None]
        chosen = half[:: max(1, -(-len(half) // MOST))]
        self.kept = [(p, some(p).clone(), some(p.grad).clone()) for p in chosen]

    @torch.no_grad()
    def after(self, rate: float) -> Rounded | None:
        """What the step moved, at this learning rate."""
        return rounded_of([counted(p, before, gradient) for p, before, gradient in self.kept], rate)
