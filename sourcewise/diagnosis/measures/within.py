"""Padding that stands between words, where only words may stand."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def rows_with(padding: Tensor) -> Tensor:
    """(batch,) bool: rows of `padding` (batch, time) bool that is true somewhere between two places that are not."""
    real = ~padding
    before, behind = real.long().cumsum(1) > 0, real.long().flip(1).cumsum(1).flip(1) > 0
    return (padding & before & behind).any(1)


def counted(tables: Iterable[Tensor], pad: int) -> tuple[int, int]:
    """Rows of ids (batch, time), and how many of them have padding between words."""
    found = [rows_with(table == pad) for table in tables]
    together = torch.cat(found) if found else torch.zeros(0, dtype=torch.bool)
    return len(together), int(together.sum())
