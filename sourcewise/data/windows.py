"""The sources of one or several files, a window after another, so that a set of any length fits.

A window is so many sources of one file. It is read when it is used, and has a digest of what it is read from: several
processes that go through the same windows take some of them each, and know which are done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import BinaryIO

from sourcewise.data.examples import Dataset
from sourcewise.data.open import holds_lines
from sourcewise.data.readers.lines import open_binary, raw_windows
from sourcewise.data.request import SourceRequest
from sourcewise.errors import RequestError
from sourcewise.runtime.extras import parquet

WINDOW = 16384  # sources at a time
WILD = "*?["  # what makes a pattern of a name


@dataclass(frozen=True, slots=True)
class Window:
    """So many sources of a file; `read` gives them, and raises RequestError for what cannot be read."""

    number: int  # of the window, over all files, counted from 0
    before: int  # sources before it, over all files
    size: int
    digest: Callable[[], str]  # of what it is read from
    read: Callable[[], Dataset]


def files_of(named: str) -> list[str]:
    """The files that a word names, in order of name: one, or those of a pattern such as `folder/*.parquet`.

    Raises RequestError where a pattern finds none.
    """
    if not any(mark in named for mark in WILD) or Path(named).exists():
        return [named]
    path = Path(named)
    fixed = next(place for place in path.parents if not any(mark in str(place) for mark in WILD))
    found = [each for each in fixed.glob(str(path.relative_to(fixed))) if each.is_file()]
    found = sorted(each for each in found if each.name.startswith(".") == path.name.startswith("."))
    if not found:
        raise RequestError(f"{named}: no file has such a name")
    return [str(each) for each in found]


def windows(
    named: str, request: SourceRequest, stream: BinaryIO | None = None, size: int | None = None
) -> Iterator[Window]:
    """Yields the windows of the files that are named; `stream` is an open file of plain lines, `-` standard input.

    A window has `size` sources (default: WINDOW), the last one of a file perhaps fewer.

    Raises RequestError for a file that is missing, or without sources.
    """
    number = before = 0
    for file in [named] if stream is not None else files_of(named):
        for window in _of_file(file, request, stream, size or WINDOW):
            yield replace(window, number=number, before=before)
            number, before = number + 1, before + window.size


def _of_file(file: str, request: SourceRequest, stream: BinaryIO | None, size: int) -> Iterator[Window]:
    if request.features or not (stream is not None or holds_lines(file)):
        yield from _of_rows(file, request, size)
    elif stream is not None:
        yield from _of_lines(file, request, stream, size)
    else:
        with open_binary(file) as opened:
            yield from _of_lines(file, request, opened, size)


def _of_lines(file: str, request: SourceRequest, stream: BinaryIO, size: int) -> Iterator[Window]:
    """Windows of plain lines, which are decoded when a window is read."""
    name, path = ("standard input", "") if file == "-" else (file, file)
    before = 0
    for data, count, lines in raw_windows(stream, name, size):
        digest, read = partial(_hashed, data), partial(_lines, lines, name, path, before, request)
        yield Window(0, 0, count, digest, read)
        before += count
    if not before:
        request.sources([] if file == "-" else file, path)  # refused: there is no line
        raise RequestError(f"{name}: no sources; give at least one line")


def _lines(lines: Callable[[], list[str]], name: str, path: str, before: int, request: SourceRequest) -> Dataset:
    found = request.sources(lines(), path)
    numbered = enumerate(found, before + 1)
    examples = [replace(each, id=str(i), where=f"{name}:{i}") for i, each in numbered]
    return replace(found, name=name, examples=examples)


def _of_rows(file: str, request: SourceRequest, size: int) -> Iterator[Window]:
    """Windows of a file that is read as a whole; of Parquet only if one of its windows is."""
    path = Path(file).expanduser()
    whole = cache(lambda: request.sources(file))
    known = _rows_of_parquet(path) if path.suffix.lower() == ".parquet" and path.is_file() else None
    count = len(whole()) if known is None else known[0]
    of_file = cache(lambda: _digest(path, whole()) if known is None else known[1])
    for start in range(0, count, size):
        stop = min(count, start + size)
        digest = partial(lambda start: f"{of_file()}:{start}", start)
        yield Window(0, 0, stop - start, digest, partial(_rows, whole, start, stop, count))
    if not count:
        whole()  # refused: it has no row


def _rows(whole: Callable[[], Dataset], start: int, stop: int, count: int) -> Dataset:
    """Some rows; what the file's notes tell is told with the first ones."""
    found = whole()
    if len(found) != count:
        raise RequestError(f"{found.name}: {len(found):,} sources in {count:,} rows; let each row have a source")
    return found if stop - start == count else replace(found[start:stop], notes=[] if start else found.notes)


def _rows_of_parquet(path: Path) -> tuple[int, str]:
    """Number of rows of a Parquet file, and a digest of its description, which has sizes and extremes of all columns.

    Raises RequestError if there is none.
    """
    pyarrow = parquet(path)
    try:
        known = pyarrow.parquet.read_metadata(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise RequestError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None
    with open_binary(path) as file:
        file.seek(-min(path.stat().st_size, known.serialized_size + 8), 2)
        return known.num_rows, _hashed(file.read())


def _digest(path: Path, found: Dataset) -> str:
    """Of the bytes of a file of texts; of features, of their ids and lengths."""
    if path.is_file() and not found.dims:
        with open_binary(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    rows = "".join(repr((each.id, each.source, each.frames)) for each in found)
    return _hashed(rows.encode(errors="surrogatepass"))


def _hashed(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
