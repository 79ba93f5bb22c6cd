"""Where modules make weights by a softmax that are no shares of what they add up: over a single entry, whose weight is
1 whatever the scores, along another axis than the one that is added up, or the same for every query.
"""

from __future__ import annotations

import math
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
PRODUCTS = (torch.matmul, torch.bmm, Tensor.matmul, Tensor.bmm, Tensor.__matmul__)  # the last axis by the last but one
KEEPS = ("dropout", "to", "type_as", "float", "contiguous", "masked_fill")  # that leave axes as they are
ALIKE, UNEVEN = 1e-6, 1e-3  # weights for other queries that are the same; a spread, of their mean, that is no average
QUERIES = 3  # that are compared at least
HIDDEN = -1e3  # scores below are a mask's
NOT_THEIRS = (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]))
Place = tuple[str, int]  # a file and its line


class Choices(TorchFunctionMode):
    """Notes each softmax by the line that calls it: the shapes of those over one entry, and lines that have others; and
    those whose weights a product adds up along another axis: shape, axis of the softmax, axis of the product. Of those
    over the `slots` of the sources also how many queries had the very weights of the one before.
    """

    def __init__(self, slots: int = 0) -> None:
        super().__init__()
        self.slots = slots
        self.alike: dict[Place, int] = {}  # queries
        self.asked: set[Place] = set()  # lines whose weights hang on the query, or cannot tell
        self._before: dict[Place, Tensor] = {}
        self.spreads: list[float] = []  # standard deviations of the scores over the slots
        self.single: dict[Place, tuple[tuple[int, ...], int]] = {}
        self.several: set[Place] = set()
        self.across: dict[Place, tuple[tuple[int, ...], int, int]] = {}
        self._made: dict[int, tuple[Tensor, Place, int]] = {}  # weights, their line, the axis counted from behind

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
                out = func(*args, **(kwargs or {}))
                self._compare(place, out, dim)
                self._measure(args[0], dim)
                if args[0].shape[dim] > 1:
                    self._made[id(out)] = out, place, dim % args[0].ndim - args[0].ndim
                return out
        if func in PRODUCTS and len(args) > 1:
            for given, along in zip(args[:2], (-1, -2), strict=True):
                _, place, axis = self._made.get(id(given), (None, None, along))
                if place is not None and axis != along and given.ndim > 2 and given.shape[along] > 1:
                    self.across.setdefault(place, (tuple(given.shape), axis % given.ndim, along % given.ndim))
        out = func(*args, **(kwargs or {}))
        if args and id(args[0]) in self._made and getattr(func, "__name__", "") in KEEPS and isinstance(out, Tensor):
            self._made[id(out)] = (out, *self._made[id(args[0])][1:])
        return out

    def _measure(self, scores: Tensor, dim: int) -> None:
        """How far apart the scores over the places of the sources are, of those that no mask hides.

        Not those of sources by themselves, which read embeddings of any size.
        """
        if scores.shape[dim] != self.slots or sum(size == self.slots for size in scores.shape[1:]) > 1:
            return
        table = scores.detach().movedim(dim, -1).flatten(0, -2).float()
        shown = table > HIDDEN
        count = shown.sum(-1)
        mean = (table * shown).sum(-1) / count.clamp(min=1)
        squares = ((table - mean[:, None]) * shown).square().sum(-1) / (count - 1).clamp(min=1)
        if bool((count > 2).any()):
            self.spreads.append(float(squares.sqrt()[count > 2].mean()))

    def _compare(self, place: Place, out: Tensor, dim: int) -> None:
        """Weights over the slots beside those of the query before: of the step before, or of the same product."""
        if out.shape[dim] != self.slots or self.slots < 2 or not out.is_floating_point():
            return
        weights = out.detach().movedim(dim, -1).float()
        before = self._before.get(place)
        self._before[place] = weights
        if before is None or before.shape != weights.shape:
            return
        shown = weights > ALIKE
        mean = weights.sum(-1) / shown.sum(-1).clamp(min=1)
        uneven = ((weights - mean[..., None]).abs() * shown).amax(-1) > UNEVEN * mean
        if not bool(uneven.any()) or bool((weights - before).abs().max() > ALIKE):
            self.asked.add(place)
        else:
            self.alike[place] = self.alike.get(place, 1) + 1


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


def choices_in(run: Callable[[], Any], slots: int) -> tuple[str, float]:
    """What `choiceless_in` tells, and the least spread of scores over the slots; NaN where none are."""
    with Choices(slots) as found:
        run()
    return _words(found, slots), min(found.spreads, default=math.nan)


def choiceless_in(run: Callable[[], Any], slots: int) -> str:
    """In words, the first line in which each softmax of a pass runs over a single entry, beside an axis of the `slots`
    of the sources, along another axis than its weights are added up by, or makes the same weights for each query; ""
    where there is none.
    """
    return choices_in(run, slots)[0]


def _words(found: Choices, slots: int) -> str:
    for place, (shape, dim) in found.single.items():
        if place not in found.several and slots > 1 and slots in shape:
            return f"{Path(place[0]).name}:{place[1]} makes a softmax of {shape} along axis {dim}, which has one entry"
    for place, (shape, dim, along) in found.across.items():
        said = f"{Path(place[0]).name}:{place[1]} makes weights of {shape} by a softmax along axis {dim}, and they are "
        return f"{said}added up along axis {along}: what is added up has no shares"
    for place, queries in found.alike.items():
        if place not in found.asked and queries >= QUERIES:
            said = (
                f"{Path(place[0]).name}:{place[1]} makes the same weights over the {slots} places of a source for each "
            )
            return f"{said}each of {queries} queries in succession: they do not hang on the decoder's state"
    return ""
