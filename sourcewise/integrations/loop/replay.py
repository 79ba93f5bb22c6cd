"""The calls of a loop's modules, made again of other batches: as the loop called them, with the true words before each.

Each argument is traced: to the batch (as it is, turned, cut, a mask of it, its lengths), to what an earlier call gave,
or to a number. Where a decoder is called once a token, its second call is the pattern of all that follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sourcewise.errors import RequestError
from sourcewise.evaluation.plain_call import FORCING
from sourcewise.integrations.loop.batches import Named, exchanged, raw_tensors, tensors_of
from sourcewise.integrations.loop.explained import made_of
from sourcewise.integrations.loop.watching import Call

Outputs = dict[str, Tensor]
Fill = Callable[[Named, Sequence[Outputs], int], Any]  # batch, what calls gave so far, which token → an argument
ASK = "say logits=lambda batch: ... (batch, time, vocabulary)"


@dataclass(frozen=True)
class Made:
    """A call that can be made again: its module, and how each tensor among its arguments comes about."""

    call: Call
    fills: Mapping[str, Fill]

    def again(self, named: Named, before: Sequence[Outputs], token: int) -> Outputs:
        """What the module gives."""

        def change(path: str, tensor: Tensor) -> Tensor:
            return self.fills[path](named, before, token) if path in self.fills else tensor

        values = exchanged((tuple(self.call.given), self.call.named), change)
        given, options = values
        options = dict(options)
        for name in FORCING:
            if name in self.call.parameters:
                place = list(self.call.parameters).index(name)
                if place < len(given):
                    given = (*given[:place], 1.0, *given[place + 1 :])
                else:
                    options[name] = 1.0
        return dict(raw_tensors(self.call.module(*given, **options)))


@dataclass(frozen=True)
class Replay:
    """All calls of a step: those made once, and those made once a token."""

    once: Sequence[Made]
    by_token: Sequence[Made]  # of the first token, and of all that follow
    said: Sequence[tuple[int, str]]  # which call gives what the loss takes labels for, and at which path
    inner: nn.Module | None = None  # the module within them whose outputs these are, where no call gives them

    def outputs(self, named: Named, tokens: int) -> list[Tensor]:
        """What the loss takes labels for; where it is said token by token, of so many."""
        given: list[Outputs] = []
        within: list[Tensor] = []
        hook = None
        if self.inner is not None:
            hook = self.inner.register_forward_hook(lambda module, inputs, out: within.append(out))
        try:
            for each in self.once:
                given.append(each.again(named, given, 0))
        finally:
            if hook is not None:
                hook.remove()
        if self.inner is not None:
            return within
        if not self.by_token:
            return [given[place][path] for place, path in self.said]
        found = []
        for token in range(tokens):
            made = self.by_token[min(token, len(self.by_token) - 1)]
            given.append(made.again(named, given, token))
            found.append(given[-1][self.said[0][1]])
        return found


def replay_of(calls: Sequence[Call], saying: Sequence[Call], named: Named, pad: int | None, size: int) -> Replay:
    """How the calls of a step are made again; `size` is the number of its examples.

    Raises RequestError that names the argument that cannot be traced.
    """
    places = [i for i, call in enumerate(calls) if call.said]
    if not places:
        if len({id(call.module) for call in saying}) != 1:
            raise RequestError(f"several modules give what the loss takes labels for; {ASK}")
        made = [_made(calls, i, named, pad, size, None) for i in range(len(calls))]
        return Replay(made, (), (), saying[0].module)
    first = places[0]
    repeated = len(places) > 1 and len({id(calls[i].module) for i in places}) == 1
    if repeated and places != list(range(first, len(calls))):
        raise RequestError(f"several modules are called for each token; {ASK}")
    upto = first if repeated else places[-1] + 1
    made = [_made(calls, i, named, pad, size, None) for i in range(upto)]
    paths = [(i, next(iter(calls[i].said))) for i in places]
    if not repeated:
        return Replay(made, (), paths)
    following = [_made(calls, i, named, pad, size, i - first) for i in (first, *places[1:2])]
    return Replay(made, following, paths)


def _made(calls: Sequence[Call], place: int, named: Named, pad: int | None, size: int, token: int | None) -> Made:
    """One of the calls, each of its arguments traced."""
    call, earlier = calls[place], calls[:place]
    fills = {}
    for path, tensor in leaves(call).items():
        fill = _filled(tensor, earlier, named, pad, size, token)
        if fill is None:
            shape = tuple(tensor.shape)
            raise RequestError(f"argument {call.name_of(path)} {shape} of {call.name} is none of the batch's; {ASK}")
        fills[path] = fill
    return Made(call, fills)


def leaves(call: Call) -> dict[str, Tensor]:
    """The tensors that a call is given, and lists of numbers, such as lengths, by path."""
    given = (tuple(call.given), call.named)
    return {**tensors_of(given), **dict(raw_tensors(given))}


def _filled(
    tensor: Tensor, earlier: Sequence[Call], named: Named, pad: int | None, size: int, token: int | None
) -> Fill | None:
    """How an argument comes about; None where that is not known."""
    for back, call in enumerate(reversed(earlier)):
        for path, out in call.outputs.items():
            for change in changes(out, tensor):
                if token:  # the calls before it are those of the tokens before, then those made once
                    return _from_before(back, path, change, token)
                return lambda n, given, t, p=len(earlier) - 1 - back, q=path, c=change: c(given[p][q])  # type: ignore[misc]
    if token is not None:
        found = _of_token(tensor, named, token)
        if found is not None:
            return found
    made = made_of(tensor, named, pad)
    if made is not None:
        return lambda n, given, t: made.of(n)
    if tensor.ndim and tensor.numel() and size in tensor.shape and bool((tensor == tensor.flatten()[0]).all()):
        value, axis = tensor.flatten()[0], tensor.shape.index(size)

        def filled(n: Named, given: Sequence[Outputs], t: int) -> Tensor:
            shape = list(tensor.shape)
            shape[axis] = size_of(n, named, size)
            return value.expand(shape).clone()

        return filled
    return (lambda n, given, t: tensor) if tensor.ndim == 0 or size not in tensor.shape else None


def size_of(named: Named, first: Named, size: int) -> int:
    """The number of examples of a batch, by the axis of a tensor that had `size` of them in the first."""
    for path, tensor in first.items():
        if path in named and size in tensor.shape:
            return named[path].shape[tensor.shape.index(size)]
    return size


def _from_before(back: int, path: str, change: Callable[[Tensor], Tensor], token: int) -> Fill:
    """From what a call before gave: so many back, for those of tokens; else at its place, counted from the first."""

    def fill(named: Named, given: Sequence[Outputs], now: int) -> Tensor:
        place = len(given) - 1 - back if back < token else len(given) - 1 - back - (now - token)
        return change(given[place][path])

    return fill


def _of_token(tensor: Tensor, named: Named, token: int) -> Fill | None:
    """The target's token at this place, or before it, or a start token, of each example."""
    if tensor.is_floating_point():
        return None
    for path, table in named.items():
        if table.ndim != 2 or table.is_floating_point():
            continue
        for axis in (1, 0):
            for shift in (0, -1):
                at = token + shift
                if not 0 <= at < table.shape[axis] or table.shape[1 - axis] != tensor.numel():
                    continue
                if torch.equal(table.select(axis, at).to(tensor.device), tensor.reshape(-1)):
                    shape = list(tensor.shape)
                    shape[max(i for i, each in enumerate(shape) if each == tensor.numel())] = -1
                    return lambda n, given, t, p=path, a=axis, s=shift, o=tuple(shape): n[p].select(a, t + s).reshape(o)  # type: ignore[misc]
    return None


def changes(out: Tensor, wanted: Tensor) -> list[Callable[[Tensor], Tensor]]:
    """How an output of a call becomes an argument of another: as it is, detached, cut, turned, of two directions,
    flattened, averaged, viewed.
    """
    ways: list[Callable[[Tensor], Tensor]] = [
        lambda t: t,
        lambda t: t[: wanted.shape[0]],
        lambda t: t[-1],
        lambda t: t[-1:],
        lambda t: t.transpose(0, 1),
        lambda t: t.squeeze(0),
        lambda t: t.unsqueeze(0),
        lambda t: t[:, -1],
        lambda t: t[:, -1:],
        lambda t: torch.cat((t[-2], t[-1]), -1),
        lambda t: torch.cat((t[-2], t[-1]), -1).unsqueeze(0),
        lambda t: torch.cat((t[0::2], t[1::2]), -1),
        lambda t: t[0::2] + t[1::2],
        lambda t: t.flatten(2).transpose(1, 2),
        lambda t: t.flatten(2).permute(2, 0, 1),
        lambda t: t.movedim(1, -1),
        lambda t: t.movedim(1, 2).flatten(2),
        lambda t: t.movedim(-1, 1).flatten(2),
        lambda t: t.flatten(1, 2),
        lambda t: t.flatten(1),
        lambda t: t.flatten(2).mean(2),
        lambda t: t.mean(1),
        lambda t: t.reshape(len(t), *wanted.shape[1:]),
    ]
    if out is wanted:
        return ways[:1]
    if not out.is_floating_point() or not wanted.is_floating_point() or not wanted.numel() or wanted.ndim < 2:
        return []
    for way in ways:
        try:
            made = way(out.detach())
        except (IndexError, RuntimeError):
            continue
        if made.shape == wanted.shape and torch.equal(made, wanted.detach()):
            return [way]
    return []
