"""A stand-in for an accelerator's graphs: the operations of a step, done again on the tensors of the first time.

As there, a repetition knows nothing of Python: addresses and shapes are those of the recording, views are not made
again, and a number that the host counted stays what it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Recording(TorchDispatchMode):
    """Within: operations are done, and remembered with their tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [each for each in tree_leaves(out) if isinstance(each, Tensor)]
        given = {_storage(each) for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)}
        new = [each for each in made if _storage(each) not in given]
        if new or func._schema.is_mutable:
            self.done.append((func, args, kwargs or {}, [] if func._schema.is_mutable else made))
        return out

    def replay(self) -> None:
        """Do them again, into the same tensors."""
        for func, args, kwargs, made in self.done:
            out = [each for each in tree_leaves(func(*args, **kwargs)) if isinstance(each, Tensor)]
            for old, new in zip(made, out, strict=False):
                old.copy_(new)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def record(step: Callable[[], Tensor], window: Any) -> tuple[Callable[[], object], Tensor]:
    """In the place of `sourcewise.generation.recorded.record`; as there, recording changes nothing."""
    step()
    window.rewind()
    recording = Recording()
    with recording:
        logits = step()
    window.rewind()
    return recording.replay, logits


class Counted:
    """`record`, and how many recordings there were and how often they were repeated."""

    def __init__(self) -> None:
        self.recordings = self.steps = 0

    def __call__(self, step: Callable[[], Tensor], window: Any) -> tuple[Callable[[], object], Tensor]:
        replay, logits = record(step, window)
        self.recordings += 1

        def counted() -> None:
            self.steps += 1
            with torch.inference_mode():
                replay()

        return counted, logits
