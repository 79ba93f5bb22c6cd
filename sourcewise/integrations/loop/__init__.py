"""The doctor in a loop of one's own: `sourcewise.doctor(model, optimizer)`, in plain PyTorch or accelerate."""

from __future__ import annotations

from typing import Any

from sourcewise.integrations.doctor import refuse_few
from sourcewise.integrations.loop.doctor import EVERY, LoopDoctor
from sourcewise.integrations.loop.understood import Asked, Role

__all__ = ["LoopDoctor", "doctor"]


def doctor(
    model: Any,
    optimizer: Any = None,
    *,
    source: Role = None,
    target: Role = None,
    pad: int | None = None,
    steps: int = 0,
    every: int = EVERY,
    examples: int = 96,
) -> LoopDoctor:
    """The doctor."""
    refuse_few(examples, "doctor")
    return LoopDoctor(model, optimizer, Asked(source, target, pad), steps=steps, every=every, examples=examples)
