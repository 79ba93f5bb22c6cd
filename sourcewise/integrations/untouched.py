"""A look at somebody else's model, after which nothing of it is otherwise than before."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from sourcewise.diagnosis.borrowing import put_back
from sourcewise.runtime.random import draws_kept

Undo = Callable[[], object]


@contextmanager
def untouched(model: Any = None) -> Iterator[None]:
    """Within: no dropout, nothing compiled; afterwards random states, modes, attributes and buffers are as before.

    Random states are those of torch, numpy and Python, and of generators that a module holds. Weights and their
    gradients are nobody's business here: a look that changes them takes copies.
    """
    undo: list[Undo] = []
    with draws_kept():
        try:
            if isinstance(model, nn.Module):
                undo += _of_module(model)
                for module in model.modules():
                    if getattr(module, "_compiled_call_impl", None) is not None:
                        vars(module)["_compiled_call_impl"] = None  # shapes of a look must not make it compile anew
                model.eval()
            yield
        finally:
            for each in undo:
                each()


def _of_module(model: nn.Module) -> list[Undo]:
    """Attributes of each module and configuration, buffers with their values, generators' states."""
    modules = list(model.modules())
    configs = [value for m in modules for name in ("config", "generation_config") if (value := vars(m).get(name))]
    inner = [value for config in configs if hasattr(config, "__dict__") for value in vars(config).values()]
    configs += [value for value in inner if hasattr(value, "to_dict") and hasattr(value, "__dict__")]
    tables = {id(vars(each)): vars(each) for each in (*modules, *configs) if hasattr(each, "__dict__")}
    tables |= {id(each): each for m in modules for each in vars(m).values() if isinstance(each, dict)}  # hooks, buffers
    undo = [_table(table) for table in tables.values()]
    undo += [_buffer(buffer) for m in modules for buffer in m._buffers.values() if buffer is not None]
    return undo + [found for m in modules for value in vars(m).values() if (found := _generator(value))]


def _table(table: dict[str, Any]) -> Undo:
    kept = dict(table)

    def undo() -> None:
        if table.keys() != kept.keys() or any(table[name] is not value for name, value in kept.items()):
            table.clear()
            table.update(kept)

    return undo


def _buffer(buffer: torch.Tensor) -> Undo:
    return partial(put_back, buffer, buffer.detach().clone())


def _generator(value: Any) -> Undo | None:
    if isinstance(value, (torch.Generator, np.random.RandomState)):
        kept: Any = value.get_state()
        return partial(value.set_state, kept)
    if isinstance(value, random.Random):
        return partial(value.setstate, value.getstate())
    if isinstance(value, np.random.Generator):
        return partial(setattr, value.bit_generator, "state", value.bit_generator.state)
    return None
