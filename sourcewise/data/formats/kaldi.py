"""Kaldi's binary archives (.ark) of matrices and vectors: float, double, and the three compressed forms.

The key of an array is the offset of its marker in the file, as a feats.scp names it (`feats.ark:1234`), or its id.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sourcewise.data.formats.store import Header, Source

_BINARY = b"\0B"
_TYPES = {b"FM ": "<f4", b"DM ": "<f8", b"FV ": "<f4", b"DV ": "<f8"}
_COMPRESSED = {b"CM ": "by column", b"CM2": "<u2", b"CM3": "u1"}
_LONGEST = 4096  # letters of an id


class KaldiArchive:
    """Arrays of an .ark file by offset or id."""

    def __init__(self, source: Source) -> None:
        if not isinstance(source, Path):
            raise ValueError("is an archive within an archive, which is not read")
        self._path = source
        with open(source, "rb"):
            pass
        self._ids: dict[str, int] | None = None

    def keys(self) -> Sequence[str]:
        """The ids, in order; the headers of the whole file are read for them."""
        return list(self._index())

    def _index(self) -> dict[str, int]:
        if self._ids is None:
            found: dict[str, int] = {}
            with open(self._path, "rb") as file:
                while (name := _read_id(file)) is not None:
                    if name in found:
                        raise ValueError(f"holds {name!r} twice; write the archive again")
                    found[name] = file.tell()
                    header, kind = _read_header(file)
                    file.seek(_bytes(header, kind), 1)
            self._ids = found
        return self._ids

    def _offset(self, key: str) -> int:
        if key.isdecimal() and (self._ids is None or key not in self._ids):
            return int(key)
        return self._index()[key]

    def header(self, key: str) -> Header:
        """Shape and type; numbers that are stored compressed come as float32."""
        with open(self._path, "rb") as file:
            file.seek(self._offset(key))
            header, kind = _read_header(file)
            begin = file.tell()
            if file.seek(0, 2) - begin < _bytes(header, kind):
                raise ValueError("is cut off; write the archive again")
            return header

    def read(self, key: str, rows: slice) -> np.ndarray:
        """These rows of an array."""
        with open(self._path, "rb") as file:
            file.seek(self._offset(key))
            header, kind = _read_header(file, back=True)
            data = file.read(_bytes(header, kind) + 21)
        return _numbers(data, header, kind)[rows]


def _read_id(file: BinaryIO) -> str | None:
    """The id before a marker; None at the end of the file."""
    name = b""
    while (letter := file.read(1)) not in (b" ", b""):
        name += letter
        if len(name) > _LONGEST:
            raise ValueError("is no binary archive of Kaldi's; copy it with copy-feats to ark:FILE")
    if not name and not letter:
        return None
    return name.decode("utf-8", "replace").strip()


def _read_header(file: BinaryIO, back: bool = False) -> tuple[Header, bytes]:
    """Shape and marker; the file is left at the numbers, or with `back` behind the marker."""
    start = file.read(5)
    kind = start[2:]
    if start[:2] != _BINARY or (kind not in _TYPES and kind not in _COMPRESSED):
        if start[:2] == _BINARY:
            raise ValueError(f"holds {kind!r} there, not a matrix or vector of numbers")
        what = "text" if b"[" in start + file.read(64) else "something else"
        raise ValueError(f"holds {what} there, not a binary matrix of Kaldi's; copy it with copy-feats to ark:FILE")
    if kind in _COMPRESSED:
        if kind != b"CM ":
            file.read(1)
        begin = file.tell()
        data = file.read(16)
        if len(data) < 16:
            raise ValueError("is cut off; write the archive again")
        shape: tuple[int, ...] = struct.unpack("<ffii", data)[2:]
        dtype: np.dtype[Any] = np.dtype("float32")
    else:
        begin = file.tell()
        sizes = file.read(5 if kind[1:2] == b"V" else 10)
        if len(sizes) not in (5, 10) or sizes[0] != 4:
            raise ValueError("is cut off; write the archive again")
        shape = tuple(struct.unpack_from("<i", sizes, at)[0] for at in range(1, len(sizes), 5))
        dtype = np.dtype(_TYPES[kind])
    if min(shape) < 0:
        raise ValueError(f"is broken: a matrix of shape {shape}")
    if back:
        file.seek(begin)
    return Header(shape, dtype), kind


def _bytes(header: Header, kind: bytes) -> int:
    """Size of the numbers as they are stored."""
    if kind == b"CM ":
        return 8 * header.shape[1] + header.shape[0] * header.shape[1]
    if kind in _COMPRESSED:
        return header.shape[0] * header.shape[1] * np.dtype(_COMPRESSED[kind]).itemsize
    return header.nbytes


def _numbers(data: bytes, header: Header, kind: bytes) -> np.ndarray:
    begin = 16 if kind in _COMPRESSED else 5 * len(header.shape)
    stored = data[begin : begin + _bytes(header, kind)]
    if len(stored) < _bytes(header, kind):
        raise ValueError("is cut off; write the archive again")
    if kind in _TYPES:
        return np.frombuffer(stored, header.dtype).reshape(header.shape)
    low, span = np.frombuffer(data[:8], "<f4")
    if kind == b"CM ":
        return _by_column(stored, header.shape, low, span)
    steps = np.frombuffer(stored, _COMPRESSED[kind]).reshape(header.shape).astype(np.float32)
    return low + steps * (span / np.float32(65535 if kind == b"CM2" else 255))


def _by_column(stored: bytes, shape: tuple[int, ...], low: np.float32, span: np.float32) -> np.ndarray:
    """Bytes between four percentiles of each column, which are stored before them."""
    rows, columns = shape
    points = low + np.frombuffer(stored[: 8 * columns], "<u2").reshape(columns, 4) * (span / np.float32(65535))
    steps = np.frombuffer(stored[8 * columns :], np.uint8).reshape(columns, rows).astype(np.float32)
    zero, quarter, three, last = (points[:, each : each + 1].astype(np.float32) for each in range(4))
    low_part = zero + (quarter - zero) * steps * np.float32(1 / 64)
    middle = quarter + (three - quarter) * (steps - 64) * np.float32(1 / 128)
    high = three + (last - three) * (steps - 192) * np.float32(1 / 63)
    found: np.ndarray = np.where(steps <= 64, low_part, np.where(steps <= 192, middle, high)).T
    return np.ascontiguousarray(found, np.float32)
