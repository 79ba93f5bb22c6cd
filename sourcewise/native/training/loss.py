"""The loss of a projection to the vocabulary on a CPU: what `LinearCrossEntropy` is given."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor

from sourcewise.native.training import cross_entropy, kernels

_kept = threading.local()


def install(module: Any) -> None:
    """Let a LinearCrossEntropy compute in native code, and look at its numbers."""
    module.at_hand = True
    module.room, module.whole_rows, module.whole = room, whole_rows, whole


def room(like: Tensor, rows: int, size: int) -> Tensor:
    """Room for logits (rows, size); a thread that trains in bf16 keeps it: fresh pages are cleared first."""
    kept: Tensor | None = getattr(_kept, "room", None)
    if kept is None or kept.dtype != like.dtype or kept.numel() < rows * size:
        kept = like.new_empty(rows * size)
        if like.dtype == torch.bfloat16:
            _kept.room = kept
    return kept[: rows * size].view(rows, size)


def whole_rows(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor | None:
    """Logits become their gradient; their nats, summed."""
    return kernels.cross_entropy_(logits, labels, smoothing).sum() if kernels.takes(logits) else None


def whole(states: Tensor, weight: Tensor, labels: Tensor, smoothing: float, wanted: bool) -> Any:
    """Nats and gradients in one call."""
    if not cross_entropy.takes(states, weight):
        return None
    return cross_entropy.linear_cross_entropy(states, weight, labels, smoothing, wanted)
