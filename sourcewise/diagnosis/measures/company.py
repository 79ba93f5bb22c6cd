"""Whether the rows of a batch read each other, and where in a network they begin to.

Every second row is exchanged for the one before it. What the others give may not move: they are the same, as wide, and
in their places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

FEWEST = 3  # rows; the first may read nothing
NEAR = 1e-5  # of the largest, that two passes over the same differ by
DEEPEST = 3  # levels of tuples and dicts that are looked into
NORMS = (nn.modules.batchnorm._BatchNorm,)
Named = Iterable[tuple[str, nn.Module]]


def twins(size: int) -> Tensor:
    """The rows of a batch, each second one exchanged for the one before it."""
    return torch.arange(size) // 2 * 2


def kept(table: Tensor, axis: int = 0) -> Tensor:
    """The rows that are still themselves."""
    return table.index_select(axis, torch.arange(0, table.shape[axis], 2, device=table.device))


@dataclass(frozen=True, slots=True)
class _Passed:
    """A call of a module that is over: what it was given, and what it gave."""

    name: str
    module: nn.Module
    given: list[Tensor]
    out: list[Tensor]


def where_rows_mix(modules: Named, passes: Sequence[Callable[[], Any]], size: int) -> str:
    """The first module that is given rows apart and gives them mixed, in words; "" where none shows it.

    The two `passes` are over a batch of so many rows, and over that with its `twins`.
    """
    known = list(modules)
    usual, other = (_trace(known, run) for run in passes)
    for one, two in zip(usual, other, strict=False):
        if one.module is not two.module:
            return ""
        if all(_apart(a, b, size) is not False for a, b in zip(one.given, two.given, strict=False)):
            mixed = [_apart(a, b, size) is False for a, b in zip(one.out, two.out, strict=False)]
            if any(mixed):
                return _said(one, size)
    return ""


def _trace(modules: Sequence[tuple[str, nn.Module]], run: Callable[[], Any]) -> list[_Passed]:
    """The calls of all modules, those that are over first first."""
    found: list[_Passed] = []
    with ExitStack() as hooks:
        for name, module in modules:

            def note(module: nn.Module, given: Any, named: Any, out: Any, name: str = name) -> None:
                found.append(_Passed(name, module, _tensors((given, named)), _tensors(out)))

            hooks.callback(module.register_forward_hook(note, with_kwargs=True).remove)
        run()
    return found


def _tensors(value: Any, depth: int = 0) -> list[Tensor]:
    """The tensors of numbers that a value holds."""
    if isinstance(value, Tensor):
        return [value.detach().clone()] if value.ndim and value.dtype != torch.bool else []
    if isinstance(value, nn.utils.rnn.PackedSequence) or depth > DEEPEST:
        return []
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return [tensor for each in inner for tensor in _tensors(each, depth + 1)]


def _apart(one: Tensor, two: Tensor, size: int) -> bool | None:
    """Whether the kept rows are the same in both, along some axis that may be the batch's; None where there is none."""
    if one.shape != two.shape:
        return None
    axes = [axis for axis in range(one.ndim) if one.shape[axis] == size]
    if not axes:
        return None
    near = NEAR * float(one.abs().max().clamp(min=1e-12))
    return any(float((kept(one, axis) - kept(two, axis)).abs().max()) <= near for axis in axes)


def _said(call: _Passed, size: int) -> str:
    """A call that mixes rows, and why it may, where its kind tells."""
    shape = tuple(call.given[0].shape) if call.given else ()
    text = f"{call.name} ({type(call.module).__name__}), given {shape}" if shape else call.name
    first = getattr(call.module, "batch_first", None)
    if isinstance(call.module, (nn.RNNBase, nn.MultiheadAttention)) and len(shape) == 3:
        if first is False and shape[0] == size:
            return f"{text}, has batch_first=False: it takes the {size} examples for steps of time"
        if first is True and shape[1] == size and shape[0] != size:
            return f"{text}, has batch_first=True: it takes the {size} examples for steps of time"
    if isinstance(call.module, NORMS):
        return f"{text}, normalises by what is in the batch, also in eval mode"
    return f"{text}: an axis in its forward() is that of the batch (softmax, mean, norm or view)"
