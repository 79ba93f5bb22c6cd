"""Columns of cells on disk: each a file of bytes, one after another, and the place where each cell begins."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np

from sourcewise.data.sequences import BLOCK

TEXT, WRITTEN, MISSING, JSON, ODD = range(5)  # kinds of cells


class Gathered(Protocol):
    """Receives the rows of a table, some at a time."""

    def add(self, columns: Mapping[str, Sequence[Any]], count: int) -> None:
        """Append so many rows; columns that are not named there get a missing cell in each."""

    def column(self, cells: Iterator[Sequence[Any]]) -> Sequence[Any]:
        """A column of its own, of these cells."""

    def columns(self) -> dict[str, Sequence[Any]]:
        """All columns, complete."""


class InMemory:
    """Columns as lists; `absent` is the cell of a row that has none."""

    def __init__(self, absent: Any) -> None:
        self._absent, self._count = absent, 0
        self._lists: dict[str, list[Any]] = {}

    def add(self, columns: Mapping[str, Sequence[Any]], count: int) -> None:
        """See Gathered."""
        for name in columns:
            if name not in self._lists:
                self._lists[name] = [self._absent] * self._count
        for name, cells in self._lists.items():
            cells.extend(columns[name] if name in columns else [self._absent] * count)
        self._count += count

    def column(self, cells: Iterator[Sequence[Any]]) -> list[Any]:
        """See Gathered."""
        return [cell for block in cells for cell in block]

    def columns(self) -> dict[str, Sequence[Any]]:
        """See Gathered."""
        return dict(self._lists)


class OnDisk:
    """Columns as files of a folder."""

    def __init__(self, folder: Path, absent: Any, written: type) -> None:
        self.folder, self._absent, self._written, self._count = folder, absent, written, 0
        self._open: dict[str, ColumnWriter] = {}
        self._made = 0

    def add(self, columns: Mapping[str, Sequence[Any]], count: int) -> None:
        """See Gathered."""
        for name in columns:
            if name not in self._open:
                self._open[name] = self._new()
                self._open[name].add([self._absent] * self._count)
        for name, writer in self._open.items():
            writer.add(columns[name] if name in columns else [self._absent] * count)
        self._count += count

    def column(self, cells: Iterator[Sequence[Any]]) -> Column:
        """See Gathered."""
        writer = self._new()
        for block in cells:
            writer.add(block)
        return writer.done()

    def columns(self) -> dict[str, Sequence[Any]]:
        """See Gathered."""
        return {name: writer.done() for name, writer in self._open.items()}

    def _new(self) -> ColumnWriter:
        self._made += 1
        return ColumnWriter(self.folder / f"column{self._made}", self._absent, self._written)


class ColumnWriter:
    """Writes a column; `absent` is the cell of a row that has none, `written` the class of numbers with a spelling."""

    def __init__(self, path: Path, absent: Any = None, written: type = float) -> None:
        self.path, self._absent, self._written = path, absent, written
        self._files = [open(path.with_suffix(ending), "wb") for ending in (".bin", ".offsets", ".kinds")]  # noqa: SIM115
        self._size, self._only_text, self._odd = 0, True, list[Any]()
        self._write(1, np.zeros(1, dtype=np.int64).tobytes())

    def add(self, cells: Sequence[Any]) -> None:
        """Append cells."""
        kinds, texts = np.zeros(len(cells), dtype=np.uint8), cells
        if not set(map(type, cells)) <= {str}:
            self._only_text, pairs = False, [self._text_of(cell) for cell in cells]
            kinds, texts = np.array([kind for kind, _ in pairs], dtype=np.uint8), [text for _, text in pairs]
        data, ends = _joined(texts)
        for place, part in enumerate((data, (self._size + ends).tobytes(), kinds.tobytes())):
            self._write(place, part)
        self._size += len(data)

    def done(self) -> Column:
        """The finished column."""
        for file in self._files:
            file.close()
        if self._only_text:
            self.path.with_suffix(".kinds").unlink(missing_ok=True)
        return Column(self.path, self._absent, self._written, self._odd)

    def _text_of(self, cell: Any) -> tuple[int, str]:
        """The kind of a cell, and the text from which it is made again."""
        if type(cell) is str:
            return TEXT, cell
        if cell is self._absent:
            return MISSING, ""
        if type(cell) is self._written and hasattr(cell, "text"):
            return WRITTEN, cell.text
        if _is_plain(cell):
            return JSON, json.dumps(cell)
        self._odd.append(cell)
        return ODD, str(len(self._odd) - 1)

    def _write(self, place: int, data: bytes) -> None:
        self._files[place].write(data)


def _is_plain(cell: Any) -> bool:
    """Whether JSON gives a cell back as it is."""
    if type(cell) in (type(None), bool, int, float, str):
        return True
    if type(cell) is list:
        return all(map(_is_plain, cell))
    return type(cell) is dict and all(type(key) is str and _is_plain(each) for key, each in cell.items())


def _joined(texts: Sequence[str]) -> tuple[bytes, np.ndarray]:
    """Texts as UTF-8, one after another, and (texts,) int64 where each ends. All at once: there are millions."""
    whole = "".join(texts)
    data, ends = whole.encode("utf-8", "surrogatepass"), np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))
    if len(data) == len(whole):
        return data, ends
    begins = np.flatnonzero((np.frombuffer(data, dtype=np.uint8) & 0xC0) != 0x80)  # of the characters
    return data, np.append(begins, len(data))[ends]


def _parted(data: bytes, places: np.ndarray) -> list[str]:
    """The texts between consecutive `places` of UTF-8."""
    whole = data.decode("utf-8", "surrogatepass")
    if len(data) != len(whole):
        inside = np.flatnonzero((np.frombuffer(data, dtype=np.uint8) & 0xC0) == 0x80)  # bytes that begin no character
        places = places - np.searchsorted(inside, places)
    return [whole[a:b] for a, b in pairwise(places.tolist())]


class Column(Sequence[Any]):
    """The cells of a column on disk, read on access."""

    def __init__(self, path: Path, absent: Any = None, written: type = float, odd: Sequence[Any] = ()) -> None:
        self.path, self._absent, self._written, self._odd = path, absent, written, odd
        self._offsets = np.memmap(path.with_suffix(".offsets"), dtype=np.int64, mode="r")
        with open(path.with_suffix(".bin"), "rb") as file:
            whole = int(self._offsets[-1])
            self._data: Any = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if whole else b""
        kinds = path.with_suffix(".kinds")
        self._kinds = np.fromfile(kinds, dtype=np.uint8) if kinds.is_file() else None
        self._size = len(self._offsets) - 1

    @property
    def is_text(self) -> bool:
        """Whether all cells are texts."""
        return self._kinds is None

    def head(self, count: int) -> Column:
        """The first cells."""
        other = Column(self.path, self._absent, self._written, self._odd)
        other._size = min(self._size, count)
        return other

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._size)
            return self._block(start, stop) if step == 1 else [self[i] for i in range(start, stop, step)]
        place = range(self._size)[index]
        return self._block(place, place + 1)[0]

    def at(self, places: Sequence[int]) -> list[Any]:
        """See `sequences.at`."""
        chosen = np.arange(self._size)[np.asarray(places, dtype=np.int64)]  # raises IndexError, as an index does
        ends = zip(self._offsets[chosen].tolist(), self._offsets[chosen + 1].tolist(), strict=True)
        texts = [self._data[start:end].decode("utf-8", "surrogatepass") for start, end in ends]
        if self._kinds is None:
            return texts
        return [self._cell(kind, text) for kind, text in zip(self._kinds[chosen].tolist(), texts, strict=True)]

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, self._size, BLOCK):
            yield from self._block(start, min(self._size, start + BLOCK))

    def __len__(self) -> int:
        return self._size

    def _block(self, start: int, stop: int) -> list[Any]:
        if stop <= start:
            return []
        first = int(self._offsets[start])
        texts = _parted(self._data[first : int(self._offsets[stop])], self._offsets[start : stop + 1] - first)
        if self._kinds is None:
            return texts
        return [self._cell(kind, text) for kind, text in zip(self._kinds[start:stop].tolist(), texts, strict=True)]

    def _cell(self, kind: int, text: str) -> Any:
        if kind == TEXT:
            return text
        if kind == MISSING:
            return self._absent
        if kind == WRITTEN:
            return self._written(text)
        return json.loads(text) if kind == JSON else self._odd[int(text)]
