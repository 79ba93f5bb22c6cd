"""Atomic writing: a file appears complete or not at all, and a failure removes the folders made for it."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from sourcewise.errors import RequestError

STREAMS = ("/dev", "/proc")  # paths below these are never replaced, though /dev/stdout may lead to a file
WRITERS = itertools.count()  # two threads that write one path have a file each until the last one replaces it


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a complete file or none: no reader sees half of it, even after a kill. Raises RequestError."""
    with writing(path) as write:
        write(content)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Callable[[str | bytes], None]]:
    """Within: a function that writes a piece of text; the file appears when the block ends without an error.

    Devices, pipes and targets of links are written in place. Raises RequestError where the folder cannot be made or
    written (permissions, a full disk).
    """
    streamed = is_stream(path)
    with contextlib.ExitStack() as stack:
        try:
            if streamed:
                file = stack.enter_context(path.open("ab", buffering=0))  # `-o /dev/stdout >> log` keeps the log
            else:
                path = path.resolve()
                stack.enter_context(new_folder(path.parent))
                part = path.with_name(f".{path.name}.{os.getpid()}-{next(WRITERS)}.part")
                stack.callback(part.unlink, missing_ok=True)
                file = stack.enter_context(part.open("wb", buffering=0))
        except OSError as error:
            raise _unwritable(path, error) from None

        def write(content: str | bytes) -> None:
            try:
                _write_all(file.fileno(), content if isinstance(content, bytes) else content.encode(errors="replace"))
            except OSError as error:
                raise _unwritable(path, error) from None

        yield write
        if not streamed:
            try:
                part.replace(path)
            except OSError as error:
                raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> RequestError:
    return RequestError(f"{path}: cannot be written ({error.strerror or error})")


def is_stream(path: Path) -> bool:
    """Whether the path is a device, a pipe or /dev/stdout, which is written to but never replaced."""
    if not path.exists() or path.is_dir():
        return False
    return not path.is_file() or any(path.absolute().is_relative_to(place) for place in STREAMS)


def check_writable(path: Path) -> None:
    """Raises RequestError unless a result can be written there: asked before long work."""
    if path.is_dir():
        raise RequestError(f"{path}: is a folder; name a file to write")
    if is_stream(path):
        return
    folder = next(p for p in (path.absolute().parent, *path.absolute().parents) if p.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise RequestError(f"{path}: cannot be written; {folder} is not a folder that you may write to")


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Within: a folder, made with its parents; if the block fails, the made folders are removed where empty."""
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # not empty, or never made
            for place in made:
                place.rmdir()
        raise


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
