"""Recurrent cells that are called step by step, and whether their state goes from one step to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sourcewise.diagnosis.observed import Standing
from sourcewise.integrations.loop.watching import Call

FEWEST = 3  # calls


@torch.no_grad()
def standing_state(calls: Sequence[Call]) -> Standing | None:
    """The first cell of these calls whose state is the same in each of them, while its inputs are not."""
    by_module: dict[int, list[Call]] = {}
    for call in calls:
        by_module.setdefault(id(call.module), []).append(call)
    for several in by_module.values():
        if len(several) < FEWEST or not all(_is_one_step(call) for call in several):
            continue
        inputs, states = zip(*(_given(call) for call in several), strict=True)
        if all(_same(inputs[0], each) for each in inputs):
            continue
        stands = [all(_same(first, each) for each in others) for first, *others in zip(*states, strict=True)]
        if any(stands):
            first = several[0]
            what = "" if all(stands) else "hidden state" if stands[0] else "cell state"
            stood = [each for each, still in zip(states[0], stands, strict=True) if still]
            begun = any(each is not None and bool(each.any()) for each in stood)
            return Standing(first.name, type(first.module).__name__, len(several), what, not begun)
    return None


class Carried:
    """Whether a recurrent layer or cell begins a batch with the state that it had at the end of the batch before."""

    def __init__(self) -> None:
        self.found = ""  # in words
        self._last: dict[int, list[Tensor]] = {}  # module → its states behind the last batch that was watched
        self._step = 0

    @torch.no_grad()
    def look(self, step: int, calls: Sequence[Call]) -> None:
        """The calls of a step; what they ended with is kept for the next, if that is looked at, too."""
        firsts: dict[int, Call] = {}
        ends: dict[int, list[Tensor]] = {}
        for call in calls:
            firsts.setdefault(id(call.module), call)
            ends[id(call.module)] = [each.detach().clone() for each in _ended(call)]
        for key, call in firsts.items() if step == self._step + 1 else ():
            begun = [each for each in _given(call)[1] if isinstance(each, Tensor)]
            before = self._last.get(key, [])
            if begun and len(begun) == len(before) and all(map(_stood, begun, before)):
                kind = type(call.module).__name__
                self.found = f"{call.name} ({kind}) begins step {step} with the state that it had at the end of step "
                self.found += str(self._step)
        self._last, self._step = ends, step


def _stood(one: Tensor, other: Tensor) -> bool:
    """Whether a state is the one before, and not zeros."""
    return bool(one.any()) and one.shape == other.shape and torch.equal(one.detach(), other)


def _ended(call: Call) -> list[Tensor]:
    """The states that a call gave."""
    out = call.out
    if isinstance(call.module, nn.RNNBase):
        out = out[1]
    return [each for each in (out if isinstance(out, tuple) else (out,)) if isinstance(each, Tensor)]


def _given(call: Call) -> tuple[Any, list[Any]]:
    """The input of a cell, and its states: one, of an LSTM two; None each where it was given none."""
    named = call.arguments
    state = named.get("hx")
    count = 2 if isinstance(call.module, (nn.LSTM, nn.LSTMCell)) else 1
    states = list(state) if isinstance(state, (tuple, list)) else [state] * count
    return named.get("input"), states


def _is_one_step(call: Call) -> bool:
    """Whether a call reads one step of a batch."""
    given = _given(call)[0]
    if not isinstance(given, Tensor):
        return False  # packed
    if isinstance(call.module, nn.RNNCellBase):
        return True
    return given.ndim == 3 and given.shape[1 if call.module.batch_first else 0] == 1


def _same(one: Any, other: Any) -> bool:
    """Whether two tensors are equal, as far as both go: later steps may have fewer rows."""
    if one is None or other is None:
        return one is other
    if one is other:
        return True
    if one.ndim != other.ndim:
        return False
    common = tuple(slice(min(a, b)) for a, b in zip(one.shape, other.shape, strict=True))
    return torch.equal(one[common], other[common])
