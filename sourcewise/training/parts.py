"""Parts of a step: what one thread or process computes at a time, each with random draws of its own.

The parts of a step, and their draws, are functions of (seed, step, part): whoever computes them, the step is the same.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from sourcewise.data.batches import Batch
from sourcewise.native.training.draws import dropout_seed
from sourcewise.runtime.device import is_host

STREAM = 13  # of a step's random draws; those of examples have others


class Part(NamedTuple):
    """A part of a step."""

    make: Callable[[], Batch]  # on any thread
    seed: int  # of dropout and decoder inputs
    cost: float = 1.0  # relative to the other parts of the step


def part_seed(seed: int, step: int, number: int) -> int:
    """The seed of a part, by the recipe's seed, the step (from 0) and the part's number in it."""
    state = np.random.SeedSequence([seed, step, number, STREAM]).generate_state(1, np.uint64)
    return int(state[0]) >> 1  # torch takes no more


def dealt(parts: Sequence[Part], rank: int, world: int) -> list[Part | None]:
    """The parts of one of `world` processes, dearest first; as many for each, None where there are not enough.

    Parts that are computed at the same time cost about the same, since processes wait for each other.
    """
    order = sorted(parts, key=lambda part: -part.cost)
    padded = [*order, *[None] * (-len(order) % world)]
    return padded[rank::world]


@contextlib.contextmanager
def drawing(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Within, on this thread: dropout draws from this seed.

    With a device, modules that draw from the process's own streams do so, too; threads would share those: torch's there
    (dropout of transformers), NumPy's (masks of its SpecAugment) and Python's.
    """
    if device is not None:
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - transformers draws from it
        random.seed(seed)
        if not is_host(device):
            torch.get_device_module(device).manual_seed(seed)
    with dropout_seed(seed):
        yield
