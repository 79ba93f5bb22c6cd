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
