"""Where a loop's modules make a softmax over a single entry, whose weight is 1 whatever the scores."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

SOFTMAX = (torch.softmax, F.softmax, Tensor.softmax, torch.log_softmax, F.log_softmax, Tensor.log_softmax)
NOT_THEIRS = (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]))
Place = tuple[str, int]  # a file and its line


class Choices(TorchFunctionMode):
    """Notes each softmax by the line that calls it: the shapes of those over one entry, and lines that have others."""

    def __init__(self) -> None:
        super().__init__()
        self.single: dict[Place, tuple[tuple[int, ...], int]] = {}
        self.several: set[Place] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The call as it is."""
        if func in SOFTMAX and args and isinstance(args[0], Tensor) and args[0].ndim > 1:
            dim = args[1] if len(args) > 1 else (kwargs or {}).get("dim")
            place = _place()
            if isinstance(dim, int) and place is not None and -args[0].ndim <= dim < args[0].ndim:
                if args[0].shape[dim] == 1:
                    self.single.setdefault(place, (tuple(args[0].shape), dim % args[0].ndim))
                else:
                    self.several.add(place)
        return func(*args, **(kwargs or {}))


def _place() -> Place | None:
    """The line outside of torch and of this package that is called from; None where there is none."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if frame.f_code.co_name == "multi_head_attention_forward":
            return None  # runs over keys, however many there are
        if not file.startswith(NOT_THEIRS):
            return file, frame.f_lineno
        frame = frame.f_back
    return None


def choiceless_in(run: Callable[[], Any], slots: int) -> str:
    """In words, the first line in which each softmax of a pass runs over a single entry, beside an axis of the `slots`
    of the sources; "" where there is none.
    """
    with Choices() as found:
        run()
    for place, (shape, dim) in found.single.items():
        if place not in found.several and slots > 1 and slots in shape:
            return f"{Path(place[0]).name}:{place[1]} makes a softmax of {shape} along axis {dim}, which has one entry"
    return ""
