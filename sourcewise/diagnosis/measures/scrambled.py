"""Where modules view a tensor in another shape as if that turned its axes: heads cut out by `view(batch, heads, time,
depth)`, channels folded into bands across time, (batch, channels, time) as (batch, time, channels).

A view keeps the order of the numbers. Whatever it is for, each axis of its result is a part of an axis, or several that
lie side by side; where it is neither, each place of the result holds numbers of several places of what was viewed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

VIEWS = (Tensor.view, Tensor.reshape, torch.reshape, Tensor.view_as, Tensor.reshape_as)
TORCH, OURS = str(Path(torch.__file__).parent), str(Path(__file__).parents[2])
PACKAGES = ("site-packages", "dist-packages")  # folders of what was installed: nobody's own code


def is_scrambled(given: Sequence[int], made: Sequence[int]) -> bool:
    """Whether no splitting and merging of neighbouring axes makes one shape of the other.

    By the steps from one entry of each axis to the next: of two of them the one must be a multiple of the other.
    """
    steps = sorted({*_steps(given), *_steps(made)})
    return any(b % a for a, b in pairwise(steps))


def is_permuted(given: Sequence[int], made: Sequence[int]) -> bool:
    """Whether two shapes are one in another order of its axes."""
    given, made = [size for size in given if size != 1], [size for size in made if size != 1]
    return given != made and sorted(given) == sorted(made)


def _steps(shape: Sequence[int]) -> list[int]:
    found, step = [], 1
    for size in reversed([size for size in shape if size != 1]):
        step *= size
        found.append(step)
    return found


class Views(TorchFunctionMode):
    """Notes each line that views numbers of a batch so, and the shapes, in words; apart, where the shapes alone do not
    tell (`unsure`): the sizes are those of before in another order, and one is a multiple of the other.
    """

    def __init__(self, weights: set[int]) -> None:
        """`weights` are the addresses of the network's own tensors: their order is nothing to a batch."""
        super().__init__()
        self.weights = weights
        self.sure: dict[str, str] = {}
        self.unsure: dict[str, str] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The call as it is."""
        out = func(*args, **(kwargs or {}))
        if func in VIEWS and args and isinstance(args[0], Tensor) and isinstance(out, Tensor):
            given, made = args[0].shape, out.shape
            found = self.sure if is_scrambled(given, made) else self.unsure if is_permuted(given, made) else None
            if found is not None and (line := own_line()) and line not in found and self._holds_numbers(args[0]):
                found[line] = f"{line} views {tuple(given)} as {tuple(made)}"
        return out

    def _holds_numbers(self, table: Tensor) -> bool:
        """Whether it is of the batch, differs along every axis, and was not padded to be shifted by a view, as scores
        for relative positions are: an edge of zeros.
        """
        if table.numel() == 0 or table.untyped_storage().data_ptr() in self.weights:
            return False
        for axis, size in enumerate(table.shape):
            first = table.narrow(axis, 0, 1)
            if size > 1 and bool((table == first).all()):
                return False
            edges = (first, table.narrow(axis, size - 1, 1)) if axis >= table.ndim - 2 and size > 1 else ()
            if any(not bool(edge.any()) for edge in edges):
                return False
        return True


def own_line() -> str:
    """The line of somebody's own code that is being run, as file:line; "" where it is of an installed package."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(TORCH):
            if (
                file.startswith(OURS)
                or any(part in PACKAGES for part in Path(file).parts)
                or frame.f_code.co_name.startswith("multi_head")
            ):
                return ""
            return f"{Path(file).name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def scrambled_in(modules: Sequence[torch.nn.Module], *runs: Callable[[], Any]) -> str:
    """In words, the first line that views a tensor of the batch as if that turned its axes; "" where there is none.

    A run after the first has other sizes, and may fail: what the shapes of one do not tell is believed if it is so in
    both.
    """
    weights = {
        each.untyped_storage().data_ptr()
        for module in modules
        for each in (*module.parameters(), *module.buffers())
        if not torch.nn.parameter.is_lazy(each)
    }
    before: dict[str, str] | None = None
    for place, run in enumerate(runs):
        views = Views(weights)
        try:
            with views:
                run()
        except Exception:
            if not place:
                raise
            break  # the code makes something for just that width, or there are no positions for more
        both = {} if before is None else {line: words for line, words in before.items() if line in views.unsure}
        if views.sure or both:
            return next(iter((views.sure or both).values()))
        before = views.unsure
    return ""
