"""Random states of the process: saved, restored, and left unchanged by calls of the library."""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch

Given = ParamSpec("Given")
Result = TypeVar("Result")


def random_states() -> dict[str, Any]:
    """Torch's random states, of the CPU and of every GPU in use; asking others for theirs would initialise them."""
    states: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def restore_random_states(states: dict[str, Any]) -> None:
    """Set the random states back."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])


@contextlib.contextmanager
def draws_kept() -> Iterator[None]:
    """Within: any draws; afterwards the random states of torch, numpy and Python are as before."""
    kept = random_states(), np.random.get_state(), random.getstate()  # noqa: NPY002 - models and collators draw from it
    try:
        yield
    finally:
        restore_random_states(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        random.setstate(kept[2])


def host_kept(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Decorator: after the call, random states and torch's number of threads are as before it."""

    @functools.wraps(function)
    def kept(*args: Given.args, **options: Given.kwargs) -> Result:
        threads = torch.get_num_threads()
        try:
            with draws_kept():
                return function(*args, **options)
        finally:
            torch.set_num_threads(threads)

    return kept
