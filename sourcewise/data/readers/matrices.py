"""Feature matrices (frames × dims) in .npy files: checked, never unpickled, and cached in memory if they fit."""

from __future__ import annotations

import io
import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from sourcewise.errors import FaultyData, RequestError

_THREADS = 8  # they wait for files, not for cores
_PARSER = threading.Lock()  # of headers
_CHUNK = 64  # files per task

T = TypeVar("T")
_Key = tuple[Path, tuple[int, int] | None]


@dataclass(frozen=True, slots=True)
class Clip:
    """Frames [start, stop) of a matrix, as a row of a manifest describes them."""

    path: Path
    where: str  # "manifest:line"
    start: int = 0
    stop: int | None = None  # None: to the end
    clamp: bool = False  # whether a stop beyond the end means the end
    frames: int | None = None  # the manifest's number of frames, for a check
    span: tuple[int, int] | None = None  # (byte offset, bytes) of the .npy inside an uncompressed archive

    def wrong(self, problem: str, kind: str = "") -> RequestError:
        """The RequestError for this file; its kind is `kind`, else the first words of the problem."""
        return RequestError(f"{self.where}: {self.path}: {problem}", kind or problem.partition(";")[0])

    def faulty(self, problem: str, kind: str = "") -> FaultyData:
        """The FaultyData error for the contents of the file."""
        return FaultyData(f"{self.where}: {self.path}: {problem}", kind or problem.partition(";")[0])

    def unreadable(self, error: OSError) -> RequestError:
        """The error for a file that cannot be opened."""
        if isinstance(error, FileNotFoundError):
            return self.wrong("no such file; `features` should name the folder that holds it")
        return self.wrong(f"cannot be read ({error.strerror})")


@dataclass(frozen=True, slots=True)
class _Stored:
    """The header of a .npy file: offset, shape and layout of its numbers."""

    dtype: np.dtype[Any]
    frames: int
    dims: int
    fortran: bool
    offset: int  # of the first number in the file


class MatrixStore:
    """The matrices of a set; `store(i)` is a new copy of clip i's (frames, dims) float32 matrix.

    If all files fit into `cache_bytes`, they are read, checked and kept as stored; else only headers are checked at
    once, and numbers when they are read. `bad` maps unusable clips, which have 0 frames, to errors that name manifest,
    line and file.
    """

    def __init__(self, clips: Sequence[Clip], cache_bytes: float) -> None:
        self.clips = list(clips)
        self.bad: dict[int, RequestError] = {}
        files: dict[_Key, Clip] = {}
        for clip in self.clips:
            files.setdefault((clip.path, clip.span), clip)
        sizes = _in_threads(_size, list(files.values()))
        self.cached = sum(size for size in sizes if isinstance(size, int)) <= cache_bytes
        opened = _in_threads(lambda clip: _open(clip, self.cached), list(files.values()))
        wrong = {key: each for key, each in zip(files, opened, strict=True) if isinstance(each, RequestError)}
        found = {key: each for key, each in zip(files, opened, strict=True) if not isinstance(each, RequestError)}
        self._stored = {key: stored for key, (stored, _) in found.items()}
        self._values = {key: values for key, (_, values) in found.items()}
        self.dims, others = self._one_width(files)
        self._ranges = self._checked(wrong | others, files)
        self.frames = [stop - start for start, stop in self._ranges]

    def _one_width(self, files: dict[_Key, Clip]) -> tuple[int, dict[_Key, RequestError]]:
        """The most frequent width, and errors of the files with another."""
        widths = [stored.dims for stored in self._stored.values()]
        counts = Counter(widths)
        usual = max(counts, key=counts.__getitem__) if widths else 0  # the first of equally frequent ones
        problem = f"wide; its neighbours are {usual} wide, and all must be alike"
        others = {key: stored.dims for key, stored in self._stored.items() if stored.dims != usual}
        return usual, {key: files[key].wrong(f"is {dims} {problem}", "another width") for key, dims in others.items()}

    def _checked(self, wrong: dict[_Key, RequestError], files: dict[_Key, Clip]) -> list[tuple[int, int]]:
        """The frames [start, stop) of each clip; errors of clips and files go into `bad`."""
        ranges = []
        for place, clip in enumerate(self.clips):
            key = (clip.path, clip.span)
            try:
                if key in wrong:
                    raise _of_row(wrong[key], files[key], clip)
                ranges.append(_range(clip, self._stored[key].frames))
            except RequestError as error:
                self.bad[place] = error
                ranges.append((0, 0))
        return ranges

    def __call__(self, index: int) -> np.ndarray:
        """A new (frames, dims) float32 matrix. Raises RequestError if the file cannot be read any more."""
        clip = self.clips[index]
        start, stop = self._ranges[index]
        key = (clip.path, clip.span)
        values = self._values[key]
        if values is None:
            values, start, stop = _read(clip, self._stored[key], start, stop), 0, stop - start
            _check_finite(clip, values, self._ranges[index][0])
        return values[start:stop].astype(np.float32)

    def __len__(self) -> int:
        return len(self.clips)


def parse_matrix(data: bytes, where: str, name: str) -> np.ndarray:
    """The (frames, dims) float32 matrix in the bytes of a .npy. Raises RequestError that names `where` and `name`."""
    clip, file = Clip(Path(name), where), io.BytesIO(data)
    stored = _read_header(clip, file)
    promised = stored.frames * stored.dims * stored.dtype.itemsize
    values = _shaped(clip, data[stored.offset : stored.offset + promised], stored, stored.frames)
    _check_finite(clip, values, 0)
    return values.astype(np.float32)


def _of_row(error: RequestError, first: Clip, clip: Clip) -> RequestError:
    """The error of a file for another row that names the same file."""
    problem = str(error).removeprefix(str(first.wrong("")))
    return type(error)(f"{clip.where}: {clip.path}: {problem}", error.kind)


def _in_threads(work: Callable[[Clip], T], clips: list[Clip]) -> list[T | RequestError]:
    """Results of `work` for each clip, in order; a raised RequestError is its result."""

    def done(clip: Clip) -> T | RequestError:
        try:
            return work(clip)
        except RequestError as error:
            return error

    chunks = [clips[i : i + _CHUNK] for i in range(0, len(clips), _CHUNK)]
    pool = ThreadPoolExecutor(_THREADS)
    try:
        return [result for part in pool.map(lambda chunk: [done(c) for c in chunk], chunks) for result in part]
    finally:
        pool.shutdown(cancel_futures=True)


def _size(clip: Clip) -> int:
    try:
        return clip.span[1] if clip.span else clip.path.stat().st_size
    except OSError as error:
        raise clip.unreadable(error) from None


def _open(clip: Clip, whole: bool) -> tuple[_Stored, np.ndarray | None]:
    """Read and check a header and, with `whole`, all numbers."""
    try:
        with open(clip.path, "rb") as file:
            stored = _read_header(clip, file)
            end = sum(clip.span) if clip.span else os.fstat(file.fileno()).st_size
            promised = stored.frames * stored.dims * stored.dtype.itemsize
            if end - stored.offset < promised:
                raise clip.wrong(f"is cut off: {end - stored.offset:,} of {promised:,} bytes; write it again")
            if not whole:
                return stored, None
            values = _shaped(clip, file.read(promised), stored, stored.frames)
    except OSError as error:
        raise clip.unreadable(error) from None
    _check_finite(clip, values, 0)
    return stored, values


def _read_header(clip: Clip, file: BinaryIO) -> _Stored:
    base = clip.span[0] if clip.span else 0
    file.seek(base)
    start = file.read(6)
    if start != np.lib.format.MAGIC_PREFIX:
        raise clip.wrong(_mistaken(start))
    try:
        shape, fortran, dtype = _parsed(file, base)
    except Exception as error:  # the parser may fail in any way on arbitrary bytes
        raise clip.wrong(f"has a broken header ({str(error).splitlines()[0][:100]}); write it again") from None
    if dtype.hasobject:
        raise clip.wrong("holds pickled objects, which are never loaded; save plain numbers with np.save")
    if dtype.kind not in "fiub":
        raise clip.wrong(f"holds {dtype}, not numbers; save it as float16 or float32")
    if len(shape) != 2:
        raise clip.wrong(f"has shape {shape}; a feature matrix is (frames, dims)")
    if shape[0] < 1:
        raise clip.wrong("has no frames; remove its line or extract its features again")
    if shape[1] < 1:
        raise clip.wrong("has frames of width 0; extract its features again")
    return _Stored(dtype, shape[0], shape[1], fortran, file.tell())


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
        return "is an .npz archive; save each matrix with np.save"
    if start[:1] == b"\x80":
        return "is a pickle, which is never loaded; save plain numbers with np.save"
    return "is not an .npy file; save each matrix with np.save"


def _shaped(clip: Clip, data: bytes, stored: _Stored, frames: int) -> np.ndarray:
    if len(data) < frames * stored.dims * stored.dtype.itemsize:
        raise clip.wrong("is cut off; write it again")
    values = np.frombuffer(data, stored.dtype)
    return values.reshape(stored.dims, frames).T if stored.fortran else values.reshape(frames, stored.dims)


def _read(clip: Clip, stored: _Stored, start: int, stop: int) -> np.ndarray:
    """Frames [start, stop) from the file, as stored."""
    row = stored.dims * stored.dtype.itemsize
    try:
        with open(clip.path, "rb") as file:
            if stored.fortran:  # the numbers of a frame are not contiguous: read all
                file.seek(stored.offset)
                return _shaped(clip, file.read(stored.frames * row), stored, stored.frames)[start:stop]
            file.seek(stored.offset + start * row)
            return _shaped(clip, file.read((stop - start) * row), stored, stop - start)
    except OSError as error:
        raise clip.unreadable(error) from None


def _check_finite(clip: Clip, values: np.ndarray, first_frame: int) -> None:
    if values.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):  # float64 values beyond float32 become infinite
        finite = np.isfinite(values.astype(np.float32, copy=False))
    if not finite.all():
        frame = first_frame + int(np.argmin(finite.all(axis=1)))
        raise clip.faulty(f"has NaN or infinity, first in frame {frame}; extract its features again")


def _range(clip: Clip, frames: int) -> tuple[int, int]:
    """The frames [start, stop) of a clip, checked against the file and the manifest."""
    stop = frames if clip.stop is None else clip.stop
    asked = f"has {frames} frames; the manifest asks for frames {clip.start} to {stop}"
    if clip.start >= stop and clip.stop is not None:
        empty = "a span of no frames" if clip.start == stop else "a span that ends before it starts"
        raise clip.faulty(f"{asked}: {empty}", empty)
    if clip.start >= frames or (stop > frames and not clip.clamp):
        raise clip.faulty(asked, "a span beyond the end of the file")
    stop = min(stop, frames)
    if clip.frames is not None and clip.frames != stop - clip.start:
        raise clip.faulty(f"has {stop - clip.start} frames; the manifest says {clip.frames}", "another n_frames")
    return clip.start, stop
