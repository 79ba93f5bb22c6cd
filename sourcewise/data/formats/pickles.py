"""Pickles of plain data: numbers, texts, containers, numpy arrays and torch tensors. Nothing else is ever built.

A pickle is a program. This unpickler gives its names to a fixed list of functions of ours, by exact name; each builds
plain data and checks what it is given. No function of numpy, torch or any other module is called by the pickle. Any
other name ends the reading.
"""

from __future__ import annotations

import gzip
import io
import pickle
import zlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from sourcewise.data.formats.store import Source, Store
from sourcewise.data.formats.tensors import as_array
from sourcewise.data.formats.trees import as_text, tree_store

_GZIP = b"\x1f\x8b"
_FIRST = b"\x80"  # of a pickle since protocol 2


class _Dtype:
    """A numpy type under construction: a code, then a byte order."""

    def __init__(self, code: object = None, *ignored: object) -> None:
        self.dtype = np.dtype(str(_of(as_text(code), str, "a type's code")))
        if self.dtype.hasobject and self.dtype != np.dtype(object):
            raise pickle.UnpicklingError("holds a numpy type of several fields, which is not read")

    def __setstate__(self, state: object) -> None:
        parts = _of(state, tuple, "a type's state")
        order = as_text(parts[1]) if len(parts) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("holds a numpy type that is not understood")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """A numpy array under construction."""

    def __init__(self, *ignored: object) -> None:
        self.value: Any = None

    def __setstate__(self, state: object) -> None:
        _, shape, dtype, fortran, raw = _of(state, tuple, "an array's state")
        kind = _of(dtype, _Dtype, "an array's type").dtype
        if kind == np.dtype(object):  # a list of what it holds
            self.value = _of(raw, list, "an array of objects")
        else:
            self.value = _filled(raw, kind, shape, "F" if fortran else "C")


def _of(value: object, kind: type, what: str) -> Any:
    if not isinstance(value, kind):
        raise pickle.UnpicklingError(f"is broken: {what} is a {type(value).__name__}")
    return value


def _filled(raw: object, dtype: np.dtype[Any], shape: object, order: Any) -> np.ndarray:
    """An array of these bytes, which must be as many as its shape takes."""
    sizes = tuple(_of(size, int, "a size") for size in _of(shape, tuple, "a shape"))
    data = raw.encode("latin-1") if isinstance(raw, str) else bytes(_of(raw, (bytes, bytearray), "an array"))  # type: ignore[arg-type]
    count = 1
    for size in sizes:
        count *= size
    if min(sizes, default=1) < 0 or dtype.hasobject or count * dtype.itemsize != len(data):
        raise pickle.UnpicklingError(f"is broken: {len(data):,} bytes for an array of shape {sizes} of {dtype}")
    return np.frombuffer(data, dtype).reshape(sizes, order=order) if data else np.zeros(sizes, dtype)


def _from_buffer(raw: object, dtype: object, shape: object, order: object) -> np.ndarray:
    """Of numpy's arrays in protocol 5."""
    if order not in ("C", "F"):
        raise pickle.UnpicklingError("is broken: an array's order")
    return _filled(bytes(raw) if isinstance(raw, memoryview) else raw, _of(dtype, _Dtype, "a type").dtype, shape, order)


def _scalar(dtype: object, raw: object = b"") -> object:
    """Of numpy's single numbers."""
    return _filled(raw, _of(dtype, _Dtype, "a number's type").dtype, (), "C").item()


def _storage(data: object) -> torch.Tensor:
    """The numbers of a tensor's storage, which torch pickles as a file inside the file."""
    found = torch.load(io.BytesIO(_of(data, bytes, "a storage")), map_location="cpu", weights_only=True)
    if not isinstance(found, (torch.TypedStorage, torch.UntypedStorage)):
        raise pickle.UnpicklingError("is broken: a tensor's storage is none")
    typed = (
        found if isinstance(found, torch.TypedStorage) else torch.TypedStorage(wrap_storage=found, dtype=torch.uint8)
    )
    return torch.tensor([], dtype=typed.dtype).set_(typed)  # type: ignore[call-overload,no-any-return]


def _tensor(storage: object, offset: object, size: object, stride: object, *ignored: object) -> np.ndarray:
    """A view of a storage, checked to lie within it."""
    flat = _of(storage, torch.Tensor, "a storage")
    sizes = [_of(each, int, "a size") for each in _of(size, tuple, "a shape")]
    steps = [_of(each, int, "a stride") for each in _of(stride, tuple, "strides")]
    begin = _of(offset, int, "an offset")
    last = begin + sum((length - 1) * step for length, step in zip(sizes, steps, strict=True))
    if min([begin, *sizes, *steps]) < 0 or (0 not in sizes and last >= flat.numel()):
        raise pickle.UnpicklingError("is broken: a tensor goes beyond its storage")
    return as_array(torch.as_strided(flat, sizes, steps, begin) if 0 not in sizes else flat.new_zeros(sizes))


def _parameter(data: object, *ignored: object) -> object:
    return data


def _encoded(text: object, encoding: object = "latin1") -> bytes:
    """Bytes as Python 3 writes them for Python 2."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("is broken: bytes in a strange encoding")
    return str(_of(text, str, "bytes")).encode("latin-1")


def _byte_array(data: object = b"", encoding: object = None) -> bytes:
    return data.encode("latin-1") if isinstance(data, str) else bytes(_of(data, bytes, "bytes"))


def _default_dict(*ignored: object) -> dict[Any, Any]:
    return defaultdict(None)


def _sequence(kind: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda items=(): kind(_of(items, (list, tuple, set, frozenset, dict), "a container"))  # type: ignore[arg-type]


def _ordered(*items: Any) -> OrderedDict[Any, Any]:
    return OrderedDict(*(_of(each, (list, tuple, dict), "a mapping") for each in items))  # type: ignore[arg-type]


_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_BUILTINS = ("builtins", "__builtin__")
_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    **{(module, "_reconstruct"): _Array for module in _MULTIARRAY},
    **{(module, "scalar"): _scalar for module in _MULTIARRAY},
    **{(module, "_frombuffer"): _from_buffer for module in _NUMERIC},
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("torch", "Size"): _sequence(tuple),
    ("collections", "OrderedDict"): _ordered,
    ("collections", "defaultdict"): _default_dict,
    ("_codecs", "encode"): _encoded,
    **{(module, name): _byte_array for module in _BUILTINS for name in ("bytes", "bytearray")},
    **{
        (module, each.__name__): _sequence(each) for module in _BUILTINS for each in (list, dict, tuple, set, frozenset)
    },
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """A function of ours for a name on the list. Raises UnpicklingError for any other."""
        found = _ALLOWED.get((module, name))
        if found is None:
            hint = "; write it as Parquet" if module.startswith("pandas") else ""
            raise pickle.UnpicklingError(
                f"is a pickle that names {module}.{name}; only arrays, tensors, texts, numbers, lists and dicts are "
                f"read, and nothing else is ever loaded{hint}"
            )
        return found

    def persistent_load(self, pid: Any) -> Any:
        """Nothing lies outside the file."""
        raise pickle.UnpicklingError("is a part of torch.save's; its name should end in .pt")


def is_pickle(path: Path) -> bool:
    """Whether a file is a pickle, also within gzip, whatever its name."""
    try:
        with open(path, "rb") as file:
            start = file.read(2)
        if start == _GZIP:
            with gzip.open(path, "rb") as file:
                start = file.read(2)
    except (OSError, EOFError, zlib.error):
        return False
    return start[:1] == _FIRST and start[1:] in (b"\x02", b"\x03", b"\x04", b"\x05")


def load_pickle(source: Source) -> Any:
    """The plain data of a pickle, also within gzip. Raises ValueError for any other contents, and OSError."""
    if isinstance(source, Path):
        with open(source, "rb") as file:
            return load_pickle(file)
    gzipped = source.read(2) == _GZIP
    source.seek(0)
    return unpickle(gzip.GzipFile(fileobj=source) if gzipped else source)  # type: ignore[arg-type]


def unpickle(file: BinaryIO) -> Any:
    """The plain data of a pickle that begins here. Raises ValueError in words for any other contents."""
    try:
        return _Unpickler(file, encoding="bytes").load()
    except pickle.UnpicklingError as error:
        said = str(error)
        raise ValueError(said if said.startswith(("is ", "holds ")) else f"is no whole pickle ({said})") from None
    except Exception as error:  # the unpickler may fail in any way on arbitrary bytes
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"is no whole pickle ({said[:100]}); write it again") from None


def resolved(value: Any) -> Any:
    """The array where one was under construction."""
    return value.value if isinstance(value, _Array) else value


def open_pickle(source: Source) -> Store:
    """The arrays of a pickle, by their path in it."""
    return tree_store(load_pickle(source), resolved)
