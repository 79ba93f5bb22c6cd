"""Feature matrices (frames × dims) of the clips of a set: checked, and cached in memory if they fit."""

from __future__ import annotations

import difflib
import io
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from sourcewise.config.data import Sounds
from sourcewise.data.examples import Dataset, Example, Note
from sourcewise.data.formats.npy import NPY, NpyFile
from sourcewise.data.formats.registry import ending_of, open_bytes, open_store
from sourcewise.data.formats.store import Header, Store, heard
from sourcewise.data.readers.feature_files import NO_FILE
from sourcewise.data.readers.images import Image, as_frames, image_of, in_words
from sourcewise.data.readers.numbers import not_finite, not_numbers
from sourcewise.errors import FaultyData, RequestError

_THREADS = 8  # they wait for files, not for cores
_SOUNDS = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg"}  # first bytes of recordings
_MOST = 5000  # keys that are compared with a wrong one
_CHUNK = 64  # files per task

T = TypeVar("T")
_Key = tuple[Path, tuple[int, int] | None, str | None]


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
    key: str | None = None  # of an array in a file of several; None: the only one

    @property
    def name(self) -> str:
        """The file, and the key in it."""
        return f"{self.path}[{self.key}]" if self.key else str(self.path)

    def wrong(self, problem: str, kind: str = "") -> RequestError:
        """The RequestError for this file; its kind is `kind`, else the first words of the problem."""
        return RequestError(f"{self.where}: {self.name}: {problem}", kind or problem.partition(";")[0])

    def faulty(self, problem: str, kind: str = "") -> FaultyData:
        """The FaultyData error for the contents of the file."""
        return FaultyData(f"{self.where}: {self.name}: {problem}", kind or problem.partition(";")[0])

    def unreadable(self, error: OSError) -> RequestError:
        """The error for a file that cannot be opened."""
        if isinstance(error, FileNotFoundError):
            return self.wrong(NO_FILE)
        return self.wrong(f"cannot be read ({error.strerror})")


@dataclass(frozen=True, slots=True)
class _Matrix:
    """An array that was found to be (frames, dims), images, or a vector (dims,), which is one frame."""

    header: Header
    key: str
    opened: Callable[[], Store]

    @property
    def vector(self) -> bool:
        return len(self.header.shape) == 1

    @property
    def frames(self) -> int:
        return 1 if self.vector else self.header.shape[0]

    @property
    def image(self) -> Image | None:
        return image_of(self.header.shape)

    @property
    def dims(self) -> int:
        return math.prod(self.image or self.header.shape[-1:])

    def read(self, clip: Clip, start: int, stop: int) -> np.ndarray:
        """Frames [start, stop), as stored. Raises RequestError."""
        try:
            store = self.opened()
            values = store.read(self.key, slice(None) if self.vector else slice(start, stop))
        except OSError as error:
            raise clip.unreadable(error) from None
        except (ValueError, KeyError) as error:  # the file is another than it was
            raise clip.wrong(str(error)) from None
        return values[None][start:stop] if self.vector else as_frames(values) if self.image else values


class MatrixStore:
    """The matrices of a set; `store(i)` is a new copy of clip i's (frames, dims) float32 matrix.

    If all files fit into `cache_bytes`, they are read, checked and kept as stored; else only headers are checked at
    once, and numbers when they are read. Recordings become what `sounds` says; `image` is the size of the images that
    the frames are, or None. `bad` maps unusable clips, which have 0 frames, to errors that name manifest, line and
    file.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        cache_bytes: float,
        stores: Mapping[Path, Store] | None = None,
        sounds: Sounds | None = None,
    ) -> None:
        self.clips = list(clips)
        self.bad: dict[int, RequestError] = {}
        files: dict[_Key, Clip] = {}
        for clip in self.clips:
            files.setdefault(_key(clip), clip)
        kind = sounds or "log-mel"
        opened = _in_threads(lambda clip: _find(clip, (stores or {}).get(clip.path), kind), list(files.values()))
        wrong = {key: each for key, each in zip(files, opened, strict=True) if isinstance(each, RequestError)}
        self._found = {key: each for key, each in zip(files, opened, strict=True) if not isinstance(each, RequestError)}
        self.cached = sum(each.header.nbytes for each in self._found.values()) <= cache_bytes
        self._values: dict[_Key, np.ndarray] = {}
        if self.cached:
            wrong |= self._read_all(files)
        self.dims, self.image, others = self._one_width(files)
        self._ranges = self._checked(wrong | others, files)
        self.frames = [stop - start for start, stop in self._ranges]

    def _read_all(self, files: dict[_Key, Clip]) -> dict[_Key, RequestError]:
        """Read and check all numbers; the errors of those that fail."""
        clips = [files[key] for key in self._found]

        def read(clip: Clip) -> np.ndarray:
            found = self._found[_key(clip)]
            values = found.read(clip, 0, found.frames)
            _check_finite(clip, values, 0)
            return values

        both = list(zip(list(self._found), _in_threads(read, clips), strict=True))
        self._values = {key: each for key, each in both if not isinstance(each, RequestError)}
        return {key: each for key, each in both if isinstance(each, RequestError)}

    def notes(self) -> list[tuple[int, str]]:
        """Remarks (place of the first clip, words) on what is not read as it is stored."""
        vectors = [i for i, clip in enumerate(self.clips) if (each := self._found.get(_key(clip))) and each.vector]
        found = []
        if vectors:
            found.append(
                (vectors[0], f"{len(vectors):,} of {len(self):,} clips are vectors, not matrices: one frame each")
            )
        converted: dict[str, list[int]] = {}
        for place, clip in enumerate(self.clips):
            each = self._found.get(_key(clip))
            remarks = each.header.remarks if each else ()
            remarks += (in_words(each.image),) if each and each.image else ()
            if each and each.header.dtype != np.float32:
                exactly = np.can_cast(each.header.dtype, np.float32)
                how = "read as float32, without loss" if exactly else "rounded to float32"
                remarks += (f"hold {each.header.dtype}: {how}",)
            for remark in remarks:
                converted.setdefault(remark, []).append(place)
        return found + [(places[0], f"{len(places):,} clips {what}") for what, places in converted.items()]

    def _one_width(self, files: dict[_Key, Clip]) -> tuple[int, Image | None, dict[_Key, RequestError]]:
        """The most frequent width, the images that it is of, and errors of the files with others."""
        widths = [found.dims for found in self._found.values()]
        counts = Counter(widths)
        usual = max(counts, key=counts.__getitem__) if widths else 0  # the first of equally frequent ones
        problem = f"wide; its neighbours are {usual} wide, and all must be alike"
        if self._look_transposed():
            problem += "; all have one number of rows and many widths: are they (dims, frames)? Save matrix.T"
        others = {key: found.dims for key, found in self._found.items() if found.dims != usual}
        wrong = {key: files[key].wrong(f"is {dims} {problem}", "another width") for key, dims in others.items()}
        images = [found.image for key, found in self._found.items() if key not in wrong]
        image = images[0] if images else None
        for key, found in self._found.items():
            if key not in wrong and found.image != image:
                size = " × ".join(map(str, found.image)) if found.image else "no images"
                like = " × ".join(map(str, image)) if image else "no images"
                problem = f"holds {size}; its neighbours hold {like}, and all must be alike"
                wrong[key] = files[key].wrong(f"{problem} (height × width × channels)", "images of another size")
        return usual, image, wrong

    def _look_transposed(self) -> bool:
        """Whether what should be frames is the same in all files, and what should be dims is not."""
        found = [each for each in self._found.values() if not each.vector]
        widths = {each.dims for each in found}
        return len(found) > 2 and len({each.frames for each in found}) == 1 and 2 * len(widths) > len(found)

    def _checked(self, wrong: dict[_Key, RequestError], files: dict[_Key, Clip]) -> list[tuple[int, int]]:
        """The frames [start, stop) of each clip; errors of clips and files go into `bad`."""
        ranges = []
        for place, clip in enumerate(self.clips):
            key = _key(clip)
            try:
                if key in wrong:
                    raise _of_row(wrong[key], files[key], clip)
                ranges.append(_range(clip, self._found[key].frames))
            except RequestError as error:
                self.bad[place] = error
                ranges.append((0, 0))
        return ranges

    def __call__(self, index: int) -> np.ndarray:
        """A new (frames, dims) float32 matrix. Raises RequestError if the file cannot be read any more."""
        clip = self.clips[index]
        start, stop = self._ranges[index]
        values = self._values.get(_key(clip))
        if values is None:
            values, start, stop = self._found[_key(clip)].read(clip, start, stop), 0, stop - start
            _check_finite(clip, values, self._ranges[index][0])
        return values[start:stop].astype(np.float32)

    def __len__(self) -> int:
        return len(self.clips)


def read_matrices(path: Path, sounds: Sounds | None = None) -> Dataset:
    """The matrices of a file, each a source without a target, in its order. Raises RequestError that names the file."""
    first = Clip(path, "source")
    try:
        keys = open_store(path).keys()
    except FileNotFoundError:
        raise RequestError(f"{path}: {NO_FILE}") from None
    except OSError as error:
        raise first.unreadable(error) from None
    except ValueError as error:
        raise first.wrong(str(error)) from None
    clips = [Clip(path, "source", key=key) for key in keys] if len(keys) > 1 else [first]
    store = MatrixStore(clips, 4e9, sounds=sounds)
    for wrong in store.bad.values():
        raise wrong
    ids = keys if len(keys) > 1 else [path.stem]
    examples = [
        Example(name, "", frames=frames, where=str(path)) for name, frames in zip(ids, store.frames, strict=True)
    ]
    notes = [Note(str(path), "", what) for _, what in store.notes()]
    return Dataset(examples, str(path), store.dims, store, notes=notes, image=store.image)


def parse_matrix(data: bytes, where: str, name: str) -> np.ndarray:
    """The (frames, dims) float32 matrix in the bytes of a .npy. Raises RequestError that names `where` and `name`."""
    clip = Clip(Path(name), where)
    try:
        store = NpyFile(io.BytesIO(data))
    except ValueError as error:
        raise clip.wrong(str(error)) from None
    found = _find(clip, store, "log-mel")
    values = found.read(clip, 0, found.frames)
    _check_finite(clip, values, 0)
    return values.astype(np.float32)


def _key(clip: Clip) -> _Key:
    return clip.path, clip.span, clip.key


def _of_row(error: RequestError, first: Clip, clip: Clip) -> RequestError:
    """The error of a file for another row that names the same file."""
    problem = str(error).removeprefix(str(first.wrong("")))
    return type(error)(f"{clip.where}: {clip.name}: {problem}", error.kind)


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


def _find(clip: Clip, store: Store | None, sounds: Sounds) -> _Matrix:
    """The array of a clip, by its header. `store` is its file where it is open already. Raises RequestError.

    Recordings are read as `sounds`.
    """
    try:
        if store is None and clip.span:
            store = _in_archive(clip.path, clip.span)
        elif store is None and _is_npy(clip):
            store = NpyFile(clip.path)
        given = heard(store, sounds) if store is not None else None
        opened = (lambda: given) if given is not None else (lambda: heard(open_store(clip.path), sounds))
        found = opened()
        key = _key_of(found, clip)
        header = found.header(key)
    except RequestError:
        raise
    except OSError as error:
        raise clip.unreadable(error) from None
    except ValueError as error:
        raise clip.wrong(str(error)) from None
    except KeyError:
        raise clip.wrong(_no_key(found, clip), "no such key") from None
    _check_shape(clip, header)
    return _Matrix(header, key, opened)


def _in_archive(path: Path, span: tuple[int, int]) -> Store:
    """The .npy, or the recording, of a span of bytes inside an uncompressed archive."""
    with open(path, "rb") as file:
        file.seek(span[0])
        start = file.read(4)
        ending = _SOUNDS.get(start)
        data = start + file.read(span[1] - 4) if ending else b""
    return open_bytes(io.BytesIO(data), ending) if ending else NpyFile(path, span)


def _is_npy(clip: Clip) -> bool:
    """Whether a file is an .npy of one clip; it is not held open, since sets have many."""
    return clip.key is None and ending_of(clip.path.name) in (NPY, "")


def _key_of(store: Store, clip: Clip) -> str:
    """The key of a clip: as named, else the only one. Raises RequestError."""
    if clip.key is not None:
        return clip.key
    keys = store.keys()
    if len(keys) != 1:
        shown = ", ".join(keys[:3]) + (", …" if len(keys) > 3 else "")
        what = f"holds {len(keys):,} arrays ({shown}); name one of them: {clip.path.name}[KEY]"
        raise clip.wrong(what, "several arrays in one file") if keys else clip.wrong("holds no array")
    return keys[0]


def _no_key(store: Store, clip: Clip) -> str:
    keys = store.keys()
    near = difflib.get_close_matches(clip.key or "", keys[:_MOST], n=1)
    hint = f"; is {near[0]!r} meant?" if near else ""
    shown = ", ".join(map(repr, keys[:3])) + (", …" if len(keys) > 3 else "")
    return f"has no {clip.key!r} among its {len(keys):,} keys ({shown}){hint}"


def _check_shape(clip: Clip, header: Header) -> None:
    shape, dtype = header.shape, header.dtype
    if problem := not_numbers(dtype):
        raise clip.wrong(problem)
    if len(shape) not in (1, 2) and not image_of(shape):
        hint = "; save its only part, x[0]" if len(shape) == 3 and shape[0] == 1 else ""
        raise clip.wrong(f"has shape {shape}; a feature matrix is (frames, dims){hint}")
    if len(shape) > 1 and shape[0] < 1:
        raise clip.wrong("has no frames; remove its line or extract its features again")
    if shape[-1] < 1:
        raise clip.wrong("has frames of width 0; extract its features again")


def _check_finite(clip: Clip, values: np.ndarray, first_frame: int) -> None:
    if problem := not_finite(values, first_frame):
        raise clip.faulty(problem)


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
