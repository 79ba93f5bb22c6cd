"""Which sources the words of a command line mean."""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from sourcewise.cli.parser import path
from sourcewise.data.examples import Dataset
from sourcewise.data.readers.lines import line_windows, open_binary
from sourcewise.data.readers.tables import endings
from sourcewise.data.request import SourceRequest
from sourcewise.errors import RequestError

WINDOW = 16384  # lines at a time
WHOLE = (".json", ".npy")  # files that are no plain lines, as tables are not
OF_MANY = (".json", ".txt")  # files that hold more than one source, as tables do


@contextlib.contextmanager
def open_lines(named: str) -> Iterator[BinaryIO | None]:
    """Standard input for `-`, a file of plain lines; None for a file of another kind. Raises RequestError."""
    if named == "-":
        if sys.stdin.isatty():
            print("a text a line; Ctrl-D ends", file=sys.stderr)
        yield sys.stdin.buffer
    elif Path(named).suffix.lower() in (*WHOLE, *endings()):
        yield None
    else:
        with open_binary(named) as stream:
            yield stream


def windows(named: str, request: SourceRequest, stream: BinaryIO | None) -> Iterator[tuple[int, Dataset]]:
    """The sources of `generate` and how many came before: lines in windows, so that a set of any length fits."""
    before = 0
    if stream is not None and not request.features:
        name = "standard input" if named == "-" else named
        for lines in line_windows(stream, name, WINDOW):
            found = request.sources(lines, "" if named == "-" else named)
            numbered = enumerate(found, before + 1)
            examples = [replace(e, id=str(i), where=f"{name}:{i}") for i, e in numbered]
            yield before, replace(found, name=name, examples=examples)
            before += len(lines)
    if not before:  # a file of another kind, or one without a line, which is refused
        yield 0, request.sources([] if named == "-" else named, named)


def name_one(given: str, identity: str | None) -> str | list[str]:
    """The path where a file is meant, else the text itself.

    Raises RequestError for a file that is not there, and for one of many sources of which none is named.
    """
    is_file = len(given) < 256 and Path(given).expanduser().is_file()  # a longer text is no name of a file
    if identity is None and not given.endswith(".npy"):
        if is_file and Path(given).suffix.lower() in (*OF_MANY, *endings()):
            raise RequestError(f"{given}: a file of many sources; name one with --id")
        return [given]
    if not is_file:
        raise RequestError(f"{given}: no such file")
    return path(given)


def position(sources: Dataset, identity: str | None) -> int:
    """Where the source of this id is; without one, the first. Raises RequestError that names the nearest."""
    if identity is None:
        return 0
    ids = [example.id for example in sources]
    if identity in ids:
        return ids.index(identity)
    near = difflib.get_close_matches(identity, ids, n=1)
    hint = f"did you mean {near[0]}?" if near else f"its first is {ids[0]}"
    raise RequestError(f"{sources.name}: has no source {identity}; {hint}")
