"""What every file of matrices is to the rest: a `Store` of arrays by key, opened by the `Format` of its ending.

A format knows its bytes and nothing of manifests. For what is wrong with a file it raises ValueError or OSError in
words that go on after the file's name ("is cut off; write it again"); readers add file, line and key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from sourcewise.config.data import Sounds

Source = Path | BinaryIO  # a file, or the bytes of one inside an archive
POINTER = 1024  # bytes of the longest file that stands for another


def stands_for(data: bytes) -> str:
    """What a small file is that stands for one which was not fetched, in words; "" if it does not."""
    if data.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file itself; fetch it with: git lfs pull"
    if data.startswith((b"/annex/objects/", b"../.git/annex/", b".git/annex/")):
        return "is a pointer of git-annex, not the file itself; fetch it with: git annex get"
    if data.lstrip()[:1] == b"<":
        return "is a page of the web, perhaps an error in place of the file; fetch it again"
    return ""


@dataclass(frozen=True, slots=True)
class Header:
    """Shape and type of an array, known without its numbers where the format allows."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    remarks: tuple[str, ...] = ()  # what is converted, in words that go on after "N clips"

    @property
    def nbytes(self) -> int:
        """Size of the numbers as stored."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class Store(Protocol):
    """Arrays of a file by key; a file of one array without a name has the key ""."""

    def keys(self) -> Sequence[str]:
        """The keys, in the order of the file."""

    def header(self, key: str) -> Header:
        """Shape and type. Raises KeyError for an unknown key, ValueError for anything but numbers."""

    def read(self, key: str, rows: slice) -> np.ndarray:
        """These rows (of the first axis) of an array, as stored. Raises as `header`."""


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file: its endings, and a function that opens one as a `Store`.

    `extra` names the optional dependencies of sourcewise that it takes.
    """

    endings: tuple[str, ...]  # (".h5", ".hdf5")
    open: Callable[[Source], Store]
    extra: str = ""

    def __post_init__(self) -> None:
        for ending in self.endings:
            if not re.fullmatch(r"(\.[a-z0-9]+)+", ending):
                raise ValueError(f"the ending {ending!r} is none: a dot, then small letters or digits")


def seconds_of(key: str) -> tuple[float, float | None]:
    """The part of a recording that the key START:END or START: names, in seconds. Raises KeyError for another."""
    times = re.fullmatch(r"(\d+(?:\.\d*)?):(\d+(?:\.\d*)?)?", key)
    if times is None:
        raise KeyError(key)
    return float(times[1]), float(times[2]) if times[2] else None


def heard(store: Store, sounds: Sounds) -> Store:
    """The same store with its recordings as these frames (see `audio.KINDS`), if it holds any."""
    found: Store = store.heard(sounds) if hasattr(store, "heard") else store
    return found


class Arrays:
    """A store of arrays in memory."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self._arrays = arrays

    def keys(self) -> Sequence[str]:
        """The keys, in order."""
        return list(self._arrays)

    def header(self, key: str) -> Header:
        """Shape and type."""
        array = self._arrays[key]
        return Header(array.shape, array.dtype)

    def read(self, key: str, rows: slice) -> np.ndarray:
        """These rows of an array."""
        return self._arrays[key][rows]


class Rows:
    """One array of a file as many: array i of the first axis has the key str(i)."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key
        whole = store.header(key)
        self._count, self._each = whole.shape[0], Header(whole.shape[1:], whole.dtype)

    def keys(self) -> Sequence[str]:
        """ "0", "1", …"""
        return [str(row) for row in range(self._count)]

    def header(self, key: str) -> Header:
        """Shape and type of one row."""
        if not key.isdecimal() or int(key) >= self._count:
            raise KeyError(key)
        return self._each

    def read(self, key: str, rows: slice) -> np.ndarray:
        """These rows of one row's array."""
        row = int(key)
        return self._store.read(self._key, slice(row, row + 1))[0][rows]
