"""Arrays in nested lists and dicts: those of a pickle, or of torch.save."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sourcewise.data.formats.store import Arrays, Source, Store
from sourcewise.data.formats.tensors import as_array

_DEEPEST = 8  # levels of lists and dicts
NAMES = ("name", "id", "fileid", "video_name", "key")  # what a record is called by


def tree_store(tree: Any, resolved: Callable[[Any], Any] = lambda value: value) -> Store:
    """The arrays of a tree, by the names or places that lead to them ("clip1", "clip1/rgb", "0/features")."""
    found: dict[str, np.ndarray] = {}
    for path, array in _arrays(tree, "", 0, resolved):
        if path in found:
            raise ValueError(f"holds two arrays called {path!r}; give each a name of its own")
        found[path] = array
    return Arrays(found)


def _arrays(tree: Any, path: str, depth: int, resolved: Callable[[Any], Any]) -> Iterator[tuple[str, np.ndarray]]:
    found = array_of(resolved(tree))
    if found is not None:
        yield path, found
        return
    tree = resolved(tree)
    if depth > _DEEPEST:
        return
    inside = f"{path}/" if path else ""
    if isinstance(tree, Mapping):
        for name, each in tree.items():
            yield from _arrays(each, f"{inside}{as_text(name)}", depth + 1, resolved)
    elif isinstance(tree, (list, tuple)):
        for place, each in enumerate(tree):
            yield from _arrays(each, f"{inside}{name_of(each, str(place))}", depth + 1, resolved)


def array_of(value: Any) -> np.ndarray | None:
    """The array of numbers that a value is; None for anything else."""
    if isinstance(value, torch.Tensor):
        return as_array(value)
    return value if isinstance(value, np.ndarray) and value.dtype.kind in "fiubV" and value.ndim else None


def name_of(record: Any, otherwise: str) -> str:
    """The name that a record gives itself."""
    named = {as_text(key): as_text(value) for key, value in record.items()} if isinstance(record, Mapping) else {}
    return next((named[name] for name in NAMES if isinstance(named.get(name), str)), otherwise)


def as_text(value: Any) -> Any:
    """The text of bytes, which Python 2 wrote for texts, where they are UTF-8; anything else as it is."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value


def load_torch(source: Source) -> Any:
    """What torch.save wrote, with weights_only. Raises ValueError for any other contents, and OSError."""
    kinds = [np.float16, np.float32, np.float64, np.int8, np.int16, np.int32, np.int64, np.uint8, np.bool_]
    allowed: list[Any] = [np.zeros(0).__reduce__()[0], np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in kinds)]
    try:
        with torch.serialization.safe_globals(allowed):
            mapped = isinstance(source, Path) and _begins_as_zip(source)
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        said = str(error)
        named = re.search(r"(?:GLOBAL|class|function) ([\w.]+\w)", said)
        name = named[1] if named else said.splitlines()[0][:100]
        raise ValueError(f"holds more than tensors ({name}), which is never loaded; save tensors alone") from None
    except (RuntimeError, EOFError, TypeError, KeyError, AttributeError, IndexError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"is no readable file of torch.save ({said[:100]}); write it again") from None


def _begins_as_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def open_torch(source: Source) -> Store:
    """The tensors of a file of torch.save, by their path in it; numbers are mapped, and read when they are used."""
    return tree_store(load_torch(source))
