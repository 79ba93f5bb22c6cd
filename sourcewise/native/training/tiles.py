"""Tile instructions (AMX): 16 rows of 64 bytes are multiplied at once. `tiled` compiles what is made of them.

The products of a bf16 training step are made of them where the processor has them.
"""

from __future__ import annotations

import functools
from ctypes import CDLL
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sourcewise.native.codes import TILES
from sourcewise.native.training.kernels import call

SIDE = 32  # rows and columns that are multiplied together


@functools.cache
def has_tiles() -> bool:
    """Whether this process may use tiles: the processor has them, and the system lets it."""
    code = TILES.load()
    return code is not None and bool(code.sourcewise_tiles())


@functools.cache
def tiled(source: Path) -> CDLL | None:
    """The functions of a C++ file that uses tiles; None where it cannot."""
    return replace(TILES, source=source).load() if has_tiles() else None


def run(source: Path, name: str, *given: Any, room: str) -> None:
    """`call` a function of such a file. Raises MemoryError where there is none for `room`."""
    if call(tiled(source), name, *given):
        raise MemoryError(f"no room for {room}")


def suits(x: Tensor, few: int) -> bool:
    """Whether x (..., width) can be multiplied in tiles, and has `few` rows or more.

    Compiled calls use one thread: where torch may use several for its products, those are left to it.
    """
    return (
        x.dtype == torch.bfloat16
        and x.device.type == "cpu"
        and x.shape[-1] % SIDE == 0
        and x.numel() >= few * x.shape[-1]
        and torch.get_num_threads() == 1
        and has_tiles()
    )
