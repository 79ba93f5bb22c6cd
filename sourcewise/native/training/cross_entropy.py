"""Cross-entropy of a projection to the vocabulary in a bf16 training step, compiled for CPUs with tiles (AMX).

`takes` says whether states can be given to it; where not, `loss.py` does the same with torch. The C++ is beside this.
"""

from __future__ import annotations

from ctypes import c_float
from pathlib import Path

import torch
from torch import Tensor

from sourcewise.native.training.tiles import run, suits, tiled

CODE = Path(__file__).with_name("cross_entropy.cpp")
FEW = 32  # rows below which torch is as fast


def takes(states: Tensor, weight: Tensor) -> bool:
    """Whether states (rows, width) and weight (vocabulary, width) can be given to the function below."""
    return weight.dtype == states.dtype and suits(states, FEW) and tiled(CODE) is not None


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
