"""The tensors of anybody's batch, by their paths in it: tuples, dicts, named tuples, lists, objects, one in another."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

DEEPEST = 5  # levels that are looked into
RAGGED = 3  # tensors of other lengths in a list, from which on they are examples

Named = dict[str, Tensor]


def tensors_of(batch: Any) -> Named:
    """Tensors by path, such as "0", "src" or "net_input.src_tokens"; arrays and lists of numbers become tensors."""
    return dict(_leaves(batch, "", 0))


def examples_in(named: Named) -> int:
    """How many examples a batch has, as far as its sizes tell: the one that most tensors share, else the largest."""
    sizes = Counter(size for each in named.values() for size in each.shape[:2])
    return max(sizes, key=lambda size: (sizes[size], size), default=0)


def exchanged(batch: Any, change: Callable[[str, Tensor], Tensor]) -> Any:
    """The same batch with other tensors: `change(path, tensor)` gives each."""
    return _rebuilt(batch, "", 0, change)


def raw_tensors(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """The tensors that a value holds, themselves; of a packed sequence its data."""
    if isinstance(value, Tensor):
        yield path or "output", value
    elif isinstance(value, PackedSequence):
        yield f"{path}.data" if path else "data", value.data
    elif depth < DEEPEST and value is not None and not isinstance(value, (str, bytes, torch.nn.Module, np.ndarray)):
        for key, inner in _inside(value):
            yield from raw_tensors(inner, f"{path}.{key}" if path else str(key), depth + 1)


def _leaves(value: Any, path: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if depth > DEEPEST or value is None or isinstance(value, (str, bytes, torch.nn.Module)):
        return
    if isinstance(value, PackedSequence):
        value = torch.nn.utils.rnn.pad_packed_sequence(value, batch_first=True)
    if (tensor := _tensor(value)) is not None:
        yield path or "batch", tensor
        return
    for key, inner in _inside(value):
        yield from _leaves(inner, f"{path}.{key}" if path else str(key), depth + 1)


def _tensor(value: Any) -> Tensor | None:
    """A value as a tensor; examples of several lengths padded with zeros behind; None for what holds other values."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.as_tensor(value)
    if not isinstance(value, (list, tuple)) or not value or hasattr(value, "_fields"):
        return None
    if all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in value):
        return torch.tensor(value)
    if all(isinstance(each, Tensor) for each in value):
        first = value[0]
        alike = all(each.ndim == first.ndim > 0 and each.dtype == first.dtype for each in value)
        ragged = len({len(each) for each in value}) > 1 if alike else False
        same_rest = alike and len({each.shape[1:] for each in value}) == 1
        if len(value) >= RAGGED and ragged and same_rest and first.ndim < 3:
            return torch.nn.utils.rnn.pad_sequence(list(value), batch_first=True)
    return None


def _inside(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return list(value.items())
    if hasattr(value, "_fields"):
        return [(name, getattr(value, name)) for name in value._fields]
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(each.name, getattr(value, each.name)) for each in dataclasses.fields(value)]
    held = getattr(value, "__dict__", None)
    return [] if held is None or callable(value) else list(held.items())


def _rebuilt(value: Any, path: str, depth: int, change: Callable[[str, Tensor], Tensor]) -> Any:
    if depth > DEEPEST or value is None or isinstance(value, (str, bytes, torch.nn.Module)):
        return value
    if isinstance(value, Tensor):
        return change(path or "batch", value)
    if (tensor := _tensor(value)) is not None:
        changed = change(path or "batch", tensor)
        if changed is tensor:
            return value
        if isinstance(value, np.ndarray):
            return changed.numpy()
        return changed.tolist() if not isinstance(value[0], Tensor) else type(value)(changed.unbind())
    inner = {
        key: _rebuilt(held, f"{path}.{key}" if path else str(key), depth + 1, change) for key, held in _inside(value)
    }
    if not inner:
        return value
    if isinstance(value, Mapping):
        return _as_mapping(value, inner)
    if hasattr(value, "_fields"):
        return type(value)(**inner)
    if isinstance(value, (list, tuple)):
        return type(value)(inner.values())
    other = copy.copy(value)
    for name, held in inner.items():
        object.__setattr__(other, str(name), held)
    return other


def _as_mapping(value: Mapping[Any, Any], inner: dict[Any, Any]) -> Any:
    if type(value) is dict:
        return inner
    other: Any = copy.copy(value)
    for name, held in inner.items():
        other[name] = held
    return other
