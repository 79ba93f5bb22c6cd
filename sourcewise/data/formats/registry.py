"""The table of formats by ending, which plug-ins add to, and the door that opens any file of arrays."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable
from pathlib import Path

from sourcewise.data.formats.npy import NPY, NpyFile, NpzFile
from sourcewise.data.formats.store import POINTER, Format, Source, Store, stands_for
from sourcewise.runtime.plugins import plugins

GROUP = "sourcewise.features"  # group of entry points of plug-in formats
_OPEN = 64  # files that are held open at once


def _late(module: str, name: str) -> Callable[[Source], Store]:
    """Opens by the class of a module that is imported when it is needed."""

    def opened(source: Source) -> Store:
        store: Store = getattr(importlib.import_module(f"sourcewise.data.formats.{module}"), name)(source)
        return store

    return opened


FORMATS = (  # in the order in which a folder is searched
    Format((NPY,), NpyFile),
    Format((".npz",), NpzFile),
    Format((".pt", ".pth"), _late("trees", "open_torch")),
    Format((".pkl", ".pickle", ".pkl.gz", ".pickle.gz"), _late("pickles", "open_pickle")),
    Format((".safetensors",), _late("tensors", "open_safetensors")),
    Format((".h5", ".hdf5"), _late("hdf5", "Hdf5File"), extra="h5"),
    Format((".ark",), _late("kaldi", "KaldiArchive")),
    Format((".pose",), _late("pose", "PoseFile")),
    Format((".wav", ".flac", ".mp3", ".ogg", ".opus"), _late("audio", "AudioFile"), extra="audio"),
)


TIMED = (".pose", ".wav", ".flac", ".mp3", ".ogg", ".opus")  # endings of files whose parts are named by seconds


@functools.cache
def formats() -> dict[str, Format]:
    """Ending → format, in the order in which a folder is searched; those of plug-ins come last."""
    found = {ending: each for each in FORMATS for ending in each.endings}
    for each in plugins(GROUP, _taken):
        found |= {ending: each for ending in each.endings if ending not in found}
    return found


def _taken(found: object) -> Format:
    if not isinstance(found, Format):
        raise TypeError(f"it is no sourcewise.data.formats.store.Format but {found!r}")
    ours = next((ending for ending in found.endings for each in FORMATS if ending in each.endings), None)
    if ours is not None:
        raise ValueError(f"{ours} is read already")
    return found


def ending_of(name: str) -> str:
    """The ending by which a file of this name is read, the longest of several; "" if there is none."""
    lower = name.strip().lower()
    return max((ending for ending in formats() if lower.endswith(ending)), key=len, default="")


def open_bytes(source: Source, ending: str) -> Store:
    """The arrays of a file, or of bytes, by an ending. Raises ValueError (what is wrong, in words) or OSError."""
    found = formats()[ending]
    try:
        return found.open(source)
    except ImportError as error:
        needed = f"pip install 'sourcewise[{found.extra}]'" if found.extra else f"pip install {error.name}"
        raise ValueError(f"{ending} takes {error.name}, which is not installed: {needed}") from None


def open_store(path: Path) -> Store:
    """The arrays of a file by its ending; files stay open for the next call. Raises as `open_bytes`."""
    status = path.stat()
    return _opened(path, ending_of(path.name) or NPY, status.st_mtime_ns, status.st_size, os.getpid())


@functools.lru_cache(_OPEN)
def _opened(path: Path, ending: str, changed: int, size: int, process: int) -> Store:
    """Of each process its own, since handles do not live through a fork."""
    if path.is_dir():
        raise IsADirectoryError(21, "Is a directory")
    if size <= POINTER and (other := stands_for(path.read_bytes())):
        raise ValueError(other)
    return open_bytes(path, ending)
