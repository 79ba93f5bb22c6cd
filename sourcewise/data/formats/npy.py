"""Arrays in .npy files, and in .npz archives of them; nothing is ever unpickled."""

from __future__ import annotations

import io
import os
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sourcewise.data.formats.store import POINTER, Header, Source, stands_for

NPY = ".npy"
_PARSER = threading.Lock()  # of headers


class NpyFile:
    """One array; `span` is (offset, bytes) of an .npy inside an uncompressed archive."""

    def __init__(self, source: Source, span: tuple[int, int] | None = None) -> None:
        self._source, self._span = source, span
        if isinstance(source, Path):
            with open(source, "rb") as file:
                self._open(file)
        else:
            self._open(source)

    def _open(self, file: BinaryIO) -> None:
        base = self._span[0] if self._span else 0
        self._shape, self.fortran, self._dtype = read_header(file, base)
        self._offset = file.tell()
        end = sum(self._span) if self._span else file.seek(0, os.SEEK_END)
        promised = Header(self._shape, self._dtype).nbytes
        if end - self._offset < promised:
            raise ValueError(f"is cut off: {end - self._offset:,} of {promised:,} bytes; write it again")

    def keys(self) -> Sequence[str]:
        """One, without a name."""
        return [""]

    def header(self, key: str) -> Header:
        """Shape and type."""
        if key:
            raise KeyError(key)
        return Header(self._shape, self._dtype)

    def read(self, key: str, rows: slice) -> np.ndarray:
        """These rows, read from the file alone, unless they are stored by column."""
        if isinstance(self._source, Path):
            with open(self._source, "rb") as file:
                return self._read(file, rows)
        return self._read(self._source, rows)

    def _read(self, file: BinaryIO, rows: slice) -> np.ndarray:
        header = Header(self._shape, self._dtype)
        if self.fortran or not self._shape:  # the numbers of a row are not contiguous: read all
            file.seek(self._offset)
            values = _numbers(file.read(header.nbytes), header)
            return values.reshape(self._shape, order="F")[rows] if self._shape else values.reshape(())
        start, stop, _ = rows.indices(self._shape[0])
        part = Header((max(0, stop - start), *self._shape[1:]), self._dtype)
        file.seek(self._offset + Header((start, *self._shape[1:]), self._dtype).nbytes)
        return _numbers(file.read(part.nbytes), part).reshape(part.shape)


class NpzFile:
    """Arrays of an .npz archive, compressed or not, by name."""

    def __init__(self, source: Source) -> None:
        try:
            self._archive = zipfile.ZipFile(source)
        except zipfile.BadZipFile as error:
            raise ValueError(f"is no .npz archive ({error}); write it again with np.savez") from None
        self._headers: dict[str, Header] = {}

    def keys(self) -> Sequence[str]:
        """The names of the arrays."""
        return [name.removesuffix(NPY) for name in self._archive.namelist() if name.endswith(NPY)]

    def header(self, key: str) -> Header:
        """Shape and type, from the beginning of the array's file."""
        if key not in self._headers:
            with self._archive.open(key + NPY) as file:
                shape, _, dtype = read_header(io.BytesIO(file.read(20_000)), 0)
            self._headers[key] = Header(shape, dtype)
        return self._headers[key]

    def read(self, key: str, rows: slice) -> np.ndarray:
        """These rows of an array."""
        self.header(key)
        try:
            return NpyFile(io.BytesIO(self._archive.read(key + NPY))).read("", rows)
        except (zipfile.BadZipFile, EOFError) as error:
            raise ValueError(f"is broken ({error}); write it again with np.savez") from None


def read_header(file: BinaryIO, base: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and type of the .npy that begins at `base`; the file is left at the first number.

    Raises ValueError for what is no .npy, or holds objects.
    """
    file.seek(base)
    start = file.read(6)
    if start != np.lib.format.MAGIC_PREFIX:
        raise ValueError(_mistaken(start + file.read(POINTER)))
    try:
        shape, fortran, dtype = _parsed(file, base)
    except Exception as error:  # the parser may fail in any way on arbitrary bytes
        raise ValueError(f"has a broken header ({str(error).splitlines()[0][:100]}); write it again") from None
    if dtype.hasobject:
        raise ValueError("holds pickled objects, which are never loaded; save plain numbers with np.save")
    return shape, fortran, dtype


def _parsed(file: BinaryIO, base: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, Fortran order and type by numpy, whose parser is Python's own.

    Before Python 3.13 that parser keeps a count for all threads and may fail in one where another parses, too:
    "AST constructor recursion depth mismatch" (CPython issue 106905). So ours take turns, and try again.
    """
    for last in (False, False, True):
        file.seek(base)
        try:
            with _PARSER:
                major, _ = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
                return read(file)
        except SystemError:
            if last:
                raise
    raise AssertionError("the last try returns or raises")


def _mistaken(start: bytes) -> str:
    if not start:
        return "is empty; write it again"
    if start[:2] == b"PK":
        return "is an .npz archive; should its name end in .npz?"
    if start[:1] == b"\x80":
        return "is a pickle, which is never loaded from a name in .npy; should it end in .pkl?"
    return stands_for(start) or "is not an .npy file; save each matrix with np.save"


def _numbers(data: bytes, header: Header) -> np.ndarray:
    if len(data) < header.nbytes:
        raise ValueError("is cut off; write it again")
    return np.frombuffer(data, header.dtype)
