"""The loss of a projection to the vocabulary on a CPU: what `LinearCrossEntropy` is given."""

from __future__ import annotations

import threading
from ctypes import c_float
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sourcewise.native.training import kernels
from sourcewise.native.training.tiles import run, suits, tiled

CODE = Path(__file__).with_name("cross_entropy.cpp")
FEW = 32  # rows below which torch is as fast
_kept = threading.local()


def install(module: Any) -> None:
    """Let a LinearCrossEntropy compute in native code, and look at its numbers."""
    module.at_hand = True
    module.room, module.whole_rows, module.whole, module.two_rows = room, whole_rows, whole, two_rows


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


def two_rows(first: Tensor, second: Tensor) -> Tensor | None:
    """Logits of two passes become the gradients of how far they are apart; its nats, summed."""
    return kernels.divergence_(first, second).sum() if kernels.takes(first) else None


def whole(states: Tensor, weight: Tensor, labels: Tensor, smoothing: float, wanted: bool) -> Any:
    """Nats and gradients in one call, where the CPU has tiles (AMX)."""
    if weight.dtype != states.dtype or not suits(states, FEW) or tiled(CODE) is None:
        return None
    return linear_cross_entropy(states, weight, labels, smoothing, wanted)


def linear_cross_entropy(
    states: Tensor, weight: Tensor, labels: Tensor, smoothing: float, wanted: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Nats (rows,) of labels (rows,), 0 for one below 0; where they are wanted the gradients of their sum, but for
    the even share of the smoothing (−smoothing / vocabulary by every logit). Raises MemoryError."""
    states, weight, labels = states.contiguous(), weight.contiguous(), labels.contiguous()
    nats = torch.empty(len(states), dtype=torch.float32)
    found = [torch.empty_like(each) if wanted else None for each in (states, weight)]
    given = states, weight, labels, *states.shape, len(weight), c_float(smoothing)
    room = f"the logits of {len(weight):,} tokens"
    run(CODE, "linear_cross_entropy", *given, nats, *found, room=room)
    return nats, found[0], found[1]
