"""Random numbers of a training step: a stream of its own for each part of a step, whichever thread computes it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

_drawn = threading.local()


@contextlib.contextmanager
def dropout_seed(seed: int) -> Iterator[None]:
    """Within, on this thread: dropout draws from this seed, whatever other threads do."""
    _drawn.stream = np.random.SFC64(seed)
    try:
        yield
    finally:
        del _drawn.stream


def drawn_again() -> contextlib.AbstractContextManager[None]:
    """A context for later, on any thread, in which dropout draws what it draws from here on."""
    found: np.random.SFC64 | None = getattr(_drawn, "stream", None)
    return contextlib.nullcontext() if found is None else _from(found.state)


@contextlib.contextmanager
def _from(state: Any) -> Iterator[None]:
    kept = getattr(_drawn, "stream", None)
    _drawn.stream = np.random.SFC64()
    _drawn.stream.state = state
    try:
        yield
    finally:
        if kept is None:
            del _drawn.stream
        else:
            _drawn.stream = kept


def stream() -> np.random.SFC64:
    """Where masks come from: numpy's SFC64, four times as fast as torch's generator, which gives the seed."""
    found: np.random.SFC64 | None = getattr(_drawn, "stream", None)
    return found or np.random.SFC64(int(torch.empty((), dtype=torch.int64).random_()))


def draw_seed() -> int:
    """What compiled code draws from, drawn where dropout draws."""
    return int(stream().random_raw()) >> 1  # torch's profiler takes no larger integers than int64


def uniform(shape: Sequence[int]) -> Tensor:
    """Numbers in [0, 1), float64 on the CPU, from where dropout draws."""
    return torch.from_numpy(np.random.Generator(stream()).random(tuple(shape)))
