"""Whether a loss is given logits that an activation or dropout has passed over last, by the graph of the loss."""

from __future__ import annotations

from collections import deque
from typing import Any

from torch import Tensor

LOSSES = ("NllLoss",)  # what a cross-entropy ends with, in names of the graph's nodes
SHAPES = (
    "View", "Reshape", "UnsafeView", "Transpose", "Permute", "T", "Slice", "Select", "Squeeze", "Unsqueeze", "Clone",
    "Contiguous", "ToCopy", "Stack", "Cat", "Expand", "Index", "IndexSelect", "AsStrided", "MaskedSelect", "Alias",
    "Movedim", "Narrow", "Copy", "CopySlices", "LogSoftmax",
)  # fmt: skip
SQUEEZES = {
    "Relu": "a ReLU, below which nothing can be said", "Sigmoid": "a sigmoid, of 0 to 1", "Tanh": "a tanh, of -1 to 1",
    "Hardtanh": "a hardtanh", "Hardsigmoid": "a hardsigmoid", "Softplus": "a softplus, which is never below 0",
    "LeakyRelu": "a leaky ReLU", "Elu": "an ELU", "Gelu": "a GELU", "Silu": "a SiLU",
    "NativeDropout": "dropout",
}  # fmt: skip
MOST = 2000  # nodes of a graph that are looked at


def squeezed_by(loss: Any) -> str:
    """The activation that is the last thing before the softmax of a cross-entropy, in words; "" where there is none."""
    if not isinstance(loss, Tensor) or loss.grad_fn is None:
        return ""
    ahead: deque[tuple[Any, bool]] = deque([(loss.grad_fn, False)])
    known, looked = {(loss.grad_fn, False)}, 0
    while ahead and looked < MOST:
        (node, within), looked = ahead.popleft(), looked + 1
        name = type(node).__name__.partition("Backward")[0].rstrip("0123456789D")
        if within and name in SQUEEZES:
            return SQUEEZES[name]
        if within and name not in SHAPES:
            continue  # a layer
        inside = within or name.startswith(LOSSES)
        for other, _ in getattr(node, "next_functions", ()):
            if other is not None and (other, inside) not in known:
                known.add((other, inside))
                ahead.append((other, inside))
    return ""
