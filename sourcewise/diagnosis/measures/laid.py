"""On which side of their rows batches are padded, and the same rows padded on the other one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Side = Literal["left", "right", ""]


@dataclass(frozen=True, slots=True)
class Laid:
    """Rows that are padded on another side than those of the training, and what that does to their targets.

    `nats` are those of a target token as the rows lie and as they lie in training, and by how much it moves on average;
    None where it was not tried.
    """

    where: str  # in words
    side: Side
    trained: Side
    nats: tuple[float, float, float] | None = None


def side_of(real: Tensor) -> Side:
    """Where the padding of rows (batch, width) stands; "" where there is none, or it stands on both sides."""
    padded = real[~real.all(1) & real.any(1)]
    if not len(padded):
        return ""
    left, right = ~padded[:, 0] & padded[:, -1], padded[:, 0] & ~padded[:, -1]
    return "left" if bool(left.all()) else "right" if bool(right.all()) else ""


def one_side(sides: Iterable[Side]) -> Side:
    """The side of several batches; "" where they differ or nothing is padded."""
    known = set(sides) - {""}
    return known.pop() if len(known) == 1 else ""


def on_side(table: Tensor, real: Tensor, side: Side) -> Tensor:
    """The same rows (batch, width, …), what is real in its order on the other side of the padding."""
    order = torch.argsort((~real if side == "right" else real).to(torch.uint8), dim=1, stable=True).to(table.device)
    order = order.view(*order.shape, *[1] * (table.ndim - 2)).expand_as(table)
    return table.gather(1, order)
