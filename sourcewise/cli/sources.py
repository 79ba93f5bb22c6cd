"""Opens the sources that a command line names: standard input, a file, or a text."""

from __future__ import annotations

import contextlib
import difflib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sourcewise.cli.parser import path
from sourcewise.data.examples import Dataset
from sourcewise.data.open import holds_lines
from sourcewise.data.readers.lines import open_binary
from sourcewise.data.readers.tables import endings
from sourcewise.data.windows import files_of
from sourcewise.errors import RequestError

OF_MANY = (".json", ".txt")  # files that hold more than one source, as tables do


@contextlib.contextmanager
def open_lines(named: str) -> Iterator[BinaryIO | None]:
    """Within: the stream of standard input (`-`) or of a file of plain lines; None for others and for patterns.

    Raises RequestError.
    """
    if named == "-":
        if sys.stdin.isatty():
            print("one text per line; Ctrl-D ends", file=sys.stderr)
        yield sys.stdin.buffer
    elif files_of(named) != [named] or not holds_lines(named):
        yield None
    else:
        with open_binary(named) as stream:
            yield stream


def name_one(given: str, identity: str | None) -> str | list[str]:
    """The path if the word names a file, else the word as a list of one text.

    Raises RequestError for a missing file, and for a file of many sources without an id.
    """
    is_file = len(given) < 256 and Path(given).expanduser().is_file()  # longer texts are not file names
    if identity is None and not (given.endswith(".npy") or (is_file and _holds_matrices(given))):
        if is_file and Path(given).suffix.lower() in (*OF_MANY, *endings()):
            raise RequestError(f"{given}: a file of many sources; name one with --id")
        return [given]
    if not is_file and holds_lines(given):  # a folder or several shards may be a manifest
        raise RequestError(f"{given}: no such file")
    return path(given)


def _holds_matrices(given: str) -> bool:
    return not holds_lines(given) and Path(given).suffix.lower() not in (*OF_MANY, *endings())


def position(sources: Dataset, identity: str | None) -> int:
    """Index of the source with this id; 0 without an id. Raises RequestError that names the nearest id."""
    if identity is None and len(sources) > 1:
        raise RequestError(f"{sources.name}: a file of many sources; name one with --id")
    if identity is None:
        return 0
    ids = [example.id for example in sources]
    if identity in ids:
        return ids.index(identity)
    near = difflib.get_close_matches(identity, ids, n=1)
    hint = f"did you mean {near[0]}?" if near else f"its first is {ids[0]}"
    raise RequestError(f"{sources.name}: has no source {identity}; {hint}")
