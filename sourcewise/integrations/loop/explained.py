"""A tensor as a loop made it of its batch: the batch's own, turned, cut, a mask, lengths; made anew of another one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sourcewise.data.batches import IGNORED

Make = Callable[[Tensor], Any]
INF = float("-inf")
FEW_LEFT_OUT = 2  # places at the end of each target, else outputs are of one length
MOST_LEFT_OUT = 3  # places of a target before the first label: a start token, a code, one too many


@dataclass(frozen=True, slots=True)
class Made:
    """How a value is made: of the tensor at `path`, in words, and by `make`."""

    path: str
    words: str
    make: Make

    def of(self, named: Mapping[str, Tensor]) -> Any:
        """The same of another batch."""
        return self.make(named[self.path])


def made_of(value: Any, named: Mapping[str, Tensor], pad: int | None = None) -> Made | None:
    """How a value is made of the tensors of a batch, the plainest way first; None where nothing that is known gives it.

    `pad` is the id of padding, which masks and lengths are made of.
    """
    for path, tensor in named.items():
        if tensor is value:
            return Made(path, "", lambda given: given)
    ways = list(_ways(value, pad))
    for path, tensor in named.items():
        for words, make in ways:
            try:
                made = make(tensor)
            except (IndexError, RuntimeError, TypeError):
                continue
            if alike(made, value):
                return Made(path, words, make)
    return _cut_of(value, named)


def _cut_of(value: Any, named: Mapping[str, Tensor]) -> Made | None:
    """How ids (batch, time) are cut out of a tensor of a batch, further than `views` does."""
    if not isinstance(value, Tensor) or value.ndim != 2 or value.dtype != torch.int64 or not value.numel():
        return None
    for path, tensor in named.items():
        for turn, table in (("", tensor), (".T", tensor.T)) if tensor.ndim == 2 else ():
            for turned in (False, True):
                if table.shape[int(turned)] != value.shape[int(turned)]:
                    continue
                for words, make in slices(table, value.shape[1 - int(turned)], turned):
                    if "more" not in words and alike(make(table), value):
                        return Made(path, turn + words, (lambda t, m=make: m(t.T)) if turn else make)  # type: ignore[misc]
    return None


def views(table: Tensor) -> Iterator[tuple[str, Make]]:
    """How ids (batch, time) or features are turned and cut, the plainest first."""
    if table.ndim < 2:
        yield "", lambda t: t
        return
    turns: list[tuple[str, Make]] = [("", lambda t: t), (".T", lambda t: t.transpose(0, 1))]
    cuts: list[tuple[str, Make]] = [
        ("", lambda t: t),
        ("[:, :-1]", lambda t: t[:, :-1]),
        ("[:, 1:]", lambda t: t[:, 1:]),
        ("[:-1]", lambda t: t[:-1]),
        ("[1:]", lambda t: t[1:]),
    ]
    for turn, turned in turns:
        for cut, cutting in cuts:
            yield turn + cut, lambda t, a=turned, b=cutting: b(a(t))  # type: ignore[misc]
    if table.ndim == 3 and table.shape[-1] == 1:
        for words, make in views(table.squeeze(-1)):
            yield f".squeeze(-1){words}", lambda t, m=make: m(t.squeeze(-1))  # type: ignore[misc]


def slices(table: Tensor, places: int, turned: bool) -> Iterator[tuple[str, Make]]:
    """Ids (batch, time), or (time, batch), as so many places from the first, second or third on: cut off behind, or
    filled with labels that do not count. In words as `views` says it, so that `begin_of` tells where they begin.
    """
    axis = 0 if turned else 1
    width = table.shape[axis]
    for begin in range(min(MOST_LEFT_OUT, width - 1) + 1):
        missing = begin + places - width
        if missing > begin or (width == places and not begin):
            continue  # more places than it has; or as it is
        side = f"[{'' if turned else ':, '}"
        if missing >= 0:
            words = f"{side}{begin}:]" + (f" and {missing} more" if missing else "")
            yield words, lambda t, b=begin, m=missing, a=axis: _filled(t.narrow(a, b, t.shape[a] - b), m, a)  # type: ignore[misc]
        elif missing >= -FEW_LEFT_OUT:
            yield (
                f"{side}{begin or ''}:{missing}]",
                lambda t, b=begin, m=missing, a=axis: t.narrow(a, b, t.shape[a] - b + m),  # type: ignore[misc]
            )
        else:
            yield (
                f"{side}{begin}:{begin + places}]",
                lambda t, b=begin, a=axis: _filled(
                    t.narrow(a, b, min(places, t.shape[a] - b)), places + b - t.shape[a], a
                ),  # type: ignore[misc]
            )


def _filled(table: Tensor, more: int, axis: int) -> Tensor:
    """With so many more places along an axis, whose labels do not count."""
    if more <= 0:
        return table
    return F.pad(table, (0, more) if axis == 1 else (0, 0, 0, more), value=IGNORED)


def begin_of(words: str) -> int:
    """How many places are left out before the first, by the words of a view or slice."""
    found = re.search(r"(\d+):(?:-?\d+)?\]", words)
    return int(found[1]) if found else 0


def alike(made: Any, value: Any) -> bool:
    """Whether two values are the same, also where one lies on another device or is a list."""
    if isinstance(value, (list, tuple)) and value and all(isinstance(each, int) for each in value):
        value = torch.tensor(value)
    if not isinstance(value, Tensor) or not isinstance(made, Tensor) or made.shape != value.shape:
        return False
    if made.is_floating_point() != value.is_floating_point() or (made.dtype == torch.bool) != (
        value.dtype == torch.bool
    ):
        return False
    made, value = made.detach(), value.detach()
    return bool(torch.equal(made.to(value.device, value.dtype), value))


def _ways(value: Any, pad: int | None) -> Iterator[tuple[str, Make]]:
    """What might give such a value of ids or features."""
    if isinstance(value, (list, tuple)):
        yield from _lengths(pad)
        return
    if not isinstance(value, Tensor):
        return
    yield from views(torch.empty(1, 1, 1))
    if value.dtype in (torch.int64, torch.int32) and value.ndim == 1:
        yield from _lengths(pad)
    if value.dtype == torch.bool or value.is_floating_point() or value.dtype in (torch.int64, torch.uint8):
        yield from _masks(value, pad)


def _lengths(pad: int | None) -> Iterator[tuple[str, Make]]:
    if pad is not None:
        for axis in (1, 0):
            yield "lengths", lambda t, a=axis: (t != pad).sum(a)  # type: ignore[misc]


def _masks(value: Tensor, pad: int | None) -> Iterator[tuple[str, Make]]:
    """Masks of padding and of what comes later, as they are usually made."""
    kind = value.dtype
    forms: list[tuple[str, Make]] = [("", lambda m: m)]
    for dims in ((1,), (-1,), (1, 1), (0,)):
        forms.append(("", lambda m, d=dims: _unsqueezed(m, d)))  # type: ignore[misc]
    for cut, view in views(torch.empty(1, 1)):
        if pad is not None:
            for form, shaped in forms:
                for hidden in (True, False):
                    yield (
                        f"{cut} padding{form}",
                        lambda t, v=view, f=shaped, h=hidden: _as(f((v(t) == pad) == h), kind, h),  # type: ignore[misc]
                    )
            if value.ndim == 3 or value.ndim == 4:
                yield f"{cut} padding and later", lambda t, v=view: _shaped(_both(v(t), pad), value.ndim, kind)  # type: ignore[misc]
        for axis in (1, 0):
            for hidden in (True, False):
                yield f"{cut} later", lambda t, v=view, a=axis, h=hidden: _later(v(t).shape[a], kind, h, value)  # type: ignore[misc]
            yield f"{cut} nothing hidden", lambda t, v=view, a=axis: value.new_zeros(v(t).shape[a], v(t).shape[a])  # type: ignore[misc]


def _unsqueezed(mask: Tensor, dims: tuple[int, ...]) -> Tensor:
    for dim in dims:
        mask = mask.unsqueeze(dim)
    return mask


def _as(mask: Tensor, kind: torch.dtype, hidden: bool) -> Tensor:
    """A mask in its type: of floats minus infinity where hidden, or ones where real."""
    if kind == torch.bool:
        return mask
    if kind.is_floating_point and hidden:
        return torch.zeros(mask.shape, dtype=kind, device=mask.device).masked_fill(mask, INF)
    return mask.to(kind)


def _later(width: int, kind: torch.dtype, hidden: bool, value: Tensor) -> Tensor:
    ones = torch.ones(width, width, dtype=torch.bool, device=value.device)
    mask = ones.triu(1) if hidden else ones.tril()
    return _shaped(_as(mask, kind, hidden), value.ndim, kind)


def _both(ids: Tensor, pad: int) -> Tensor:
    ones = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).tril()
    return (ids != pad).unsqueeze(-2) & ones


def _shaped(mask: Tensor, dims: int, kind: torch.dtype) -> Tensor:
    while mask.ndim < dims:
        mask = mask.unsqueeze(1 if mask.ndim == 3 else 0)
    return mask.to(kind) if mask.dtype == torch.bool else mask
