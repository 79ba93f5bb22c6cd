"""Whether a loop views what one of its modules gave as if that turned its axes, before another reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sourcewise.diagnosis.measures.scrambled import is_scrambled
from sourcewise.diagnosis.observed import Moves
from sourcewise.integrations.loop.batches import raw_tensors
from sourcewise.integrations.loop.watching import Call


@torch.no_grad()
def viewed_between(calls: Sequence[Call]) -> str:
    """In words, the first output of a call that a later one is given so; "" where none is."""
    for place, call in enumerate(calls):
        for name, value in call.arguments.items():
            for path, tensor in raw_tensors(value, name):
                for earlier, out in _outputs(calls[:place]):
                    if _is_viewed(out, tensor):
                        shapes = f"{tuple(out.shape)}, and {call.name} is given it viewed as {tuple(tensor.shape)}"
                        return f"{earlier.name} gives {shapes} ({path})"
    return ""


def _outputs(calls: Sequence[Call]) -> Iterator[tuple[Call, Tensor]]:
    for call in reversed(calls):
        for out in call.outputs.values():
            yield call, out


def _is_viewed(out: Tensor, tensor: Tensor) -> bool:
    """Whether a tensor is an output in the order in which its numbers lie, and its axes are none of those."""
    if not out.is_floating_point() or out.numel() != tensor.numel() or not is_scrambled(out.shape, tensor.shape):
        return False
    return torch.equal(out.detach().reshape(-1), tensor.detach().reshape(-1).to(out.dtype)) and bool(out.any())


def with_views(moves: Moves | None, calls: Sequence[Call]) -> Moves:
    """What moves the outputs, where it was tried; and whether the loop views something between its modules."""
    moves = moves or Moves()
    found = viewed_between(calls) or moves.scrambled
    return replace(moves, scrambled=found) if found else moves
