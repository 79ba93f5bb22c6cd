"""Columns of matrices in Parquet and Arrow files, one array per row, and of recordings as datasets writes them."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from sourcewise.config.data import Sounds
from sourcewise.data.formats.npy import NPY
from sourcewise.data.formats.registry import ending_of, open_bytes
from sourcewise.data.formats.store import Arrays, Header, Store, heard

_GROUPS = 4  # row groups that are kept
_LOOKED_AT = 20  # cells of bytes that say what a column of them holds
_BEGINS = {  # of files of one array or recording, of which a cell holds all bytes
    b"\x93NUMPY": NPY,
    b"RIFF": ".wav",
    b"fLaC": ".flac",
    b"OggS": ".ogg",
    b"ID3": ".mp3",
    b"\xff\xfb": ".mp3",
}


class ArrowFile:
    """A file's columns: those of matrices, and the others as values."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with open(path, "rb") as file:
            start = file.read(6)
        try:
            if start[:4] == b"PAR1":
                self._parquet: Any = pyarrow.parquet.ParquetFile(path)
                self.schema = self._parquet.schema_arrow
                counts = [self._parquet.metadata.row_group(i).num_rows for i in range(self._parquet.num_row_groups)]
            else:
                self._parquet = None
                mapped = pyarrow.memory_map(str(path))
                opened = pyarrow.ipc.open_file(mapped) if start == b"ARROW1" else pyarrow.ipc.open_stream(mapped)
                self._table = opened.read_all()
                self.schema, counts = self._table.schema, [self._table.num_rows]
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"is no readable Parquet or Arrow file ({str(error).splitlines()[0][:100]})") from None
        self.begins = np.cumsum([0, *counts])
        self.group = functools.lru_cache(_GROUPS)(self._group)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.begins[-1])

    def matrices(self) -> list[str]:
        """Names of the columns of matrices, vectors or recordings."""
        return [each.name for each in self.schema if _holds(each.type) and not self._is_text(each.name, each.type)]

    def _is_text(self, name: str, kind: Any) -> bool:
        """Whether a column of bytes holds texts, by its first cells."""
        if not is_bytes(_plain(kind)) or not self.rows:
            return False
        cells = self.group(0, name).drop_null().slice(0, _LOOKED_AT).to_pylist()
        return bool(cells) and all(_decoded(cell) is not None for cell in cells)

    def parts(self, name: str) -> Iterator[Any]:
        """Yields the parts of a column, one for each group of rows."""
        return (self.group(part, name) for part in range(len(self.begins) - 1))

    def _group(self, part: int, name: str) -> Any:
        if self._parquet is None:
            return self._table.column(name)
        return self._parquet.read_row_group(part, columns=[name]).column(name)


class ArrowColumn:
    """The arrays of one column by row ("0", "1", …); parts of the file are read when they are used."""

    def __init__(self, file: ArrowFile, name: str, sounds: Sounds = "log-mel") -> None:
        self._file, self._name, self._sounds = file, name, sounds

    def heard(self, sounds: Sounds) -> ArrowColumn:
        """The same column, with recordings as these frames."""
        return ArrowColumn(self._file, self._name, sounds)

    @functools.cached_property
    def _valid(self) -> set[str]:
        parts = range(len(self._file.begins) - 1)
        valid = (self._file.group(part, self._name).is_valid().to_pylist() for part in parts)
        return {str(row) for row, there in enumerate(each for part in valid for each in part) if there}

    def keys(self) -> Sequence[str]:
        """The rows that are not null."""
        return sorted(self._valid, key=int)

    def _array(self, key: str) -> Store:
        if key not in self._valid:
            raise KeyError(key)
        part = int(np.searchsorted(self._file.begins, int(key), "right")) - 1
        found = _store_of(self._file.group(part, self._name)[int(key) - int(self._file.begins[part])])
        return heard(found, self._sounds)

    def header(self, key: str) -> Header:
        """Shape and type."""
        return self._array(key).header("")

    def read(self, key: str, rows: slice) -> np.ndarray:
        """These rows of an array."""
        return self._array(key).read("", rows)


def _plain(kind: Any) -> Any:
    return kind.storage_type if isinstance(kind, pyarrow.BaseExtensionType) else kind


def is_bytes(kind: Any) -> bool:
    """Whether a column of this type holds bytes."""
    return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))


def _decoded(cell: bytes) -> str | None:
    """The text of a cell's bytes; None if they are a file, or not UTF-8."""
    if cell.startswith(tuple(_BEGINS)) or b"\0" in cell:
        return None
    try:
        return cell.decode()
    except UnicodeDecodeError:
        return None


def texts_of(cells: list[Any]) -> list[Any]:
    """Values of a column, in which bytes that are text in UTF-8 have become text."""
    texts = [_decoded(cell) if isinstance(cell, bytes) else cell for cell in cells]
    return [cell if text is None else text for cell, text in zip(cells, texts, strict=True)]


def _is_list(kind: Any) -> bool:
    types = pyarrow.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _holds(kind: Any) -> bool:
    """Whether a column of this type holds numbers in lists, or files in bytes."""
    kind = _plain(kind)
    if pyarrow.types.is_struct(kind):
        return any(field.name == "bytes" and is_bytes(field.type) for field in kind)
    depth = 0
    while _is_list(kind):
        kind, depth = kind.value_type, depth + 1
    numbers = pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind)
    return bool(depth in (1, 2) and numbers) or bool(depth == 0 and is_bytes(kind))


def _store_of(value: Any) -> Store:
    if isinstance(value, pyarrow.ExtensionScalar):
        value = value.value
    if isinstance(value, pyarrow.StructScalar):
        found = value.as_py()
        name = str(found.get("path") or "x.wav")
        if not found.get("bytes"):
            raise ValueError(f"holds no bytes, only the name {name!r}; give a column of file names")
        return open_bytes(io.BytesIO(found["bytes"]), ending_of(name) or ".wav")
    if isinstance(value, (pyarrow.BinaryScalar, pyarrow.LargeBinaryScalar)):
        cell = value.as_py()
        ending = next((ending for begin, ending in _BEGINS.items() if cell.startswith(begin)), NPY)
        return open_bytes(io.BytesIO(cell), ending)
    inner = value.values
    if not _is_list(inner.type):
        return Arrays({"": _numbers(inner)})
    flat = _numbers(inner.flatten())
    widths = set(np.diff(np.asarray(inner.offsets)).tolist()) if hasattr(inner, "offsets") else {inner.type.list_size}
    if len(widths) > 1:
        raise ValueError(f"has frames of {len(widths)} different widths, {min(widths)} to {max(widths)}")
    return Arrays({"": flat.reshape(len(inner), widths.pop() if widths else 0)})


def _numbers(values: Any) -> np.ndarray:
    if values.null_count:
        raise ValueError("has empty cells among its numbers; extract its features again")
    found: np.ndarray = values.to_numpy(zero_copy_only=False)
    return found
