"""One of several processes writes its share of the outputs of a file, in windows; see runtime/shares.py."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from sourcewise.data.examples import Note
from sourcewise.data.windows import Window, windows
from sourcewise.errors import Notice, RequestError, tell
from sourcewise.generation.generate import Progress
from sourcewise.generation.model import load
from sourcewise.generation.written import Asked, Counts, Writer
from sourcewise.runtime.cluster import Machines, over_pool
from sourcewise.runtime.files import is_stream
from sourcewise.runtime.shares import Pieces, Share


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a share."""

    counts: Counts  # of the outputs that this process wrote
    windows: int  # of the whole work
    written: int  # windows that this process wrote
    missing: int  # windows that nobody has written yet

    @property
    def told(self) -> str:
        """In one line."""
        if self.missing:
            return f"{self.written:,} of {self.windows:,} windows are written here, {self.missing:,} are missing"
        return f"{self.windows:,} windows are there, {self.written:,} of them written here"


def planned(named: str, writer: Writer, output: str) -> Pieces:
    """The pieces that the outputs of a file are written in: a folder of them where `output` is one or ends in a slash.

    Raises RequestError for sources that cannot be read twice, and for an output that cannot be written.
    """
    if named == "-" or is_stream(Path(named)):
        raise RequestError(f"{named}: every process reads the sources; name a FILE that can be read again")
    if not output:
        raise RequestError("-o is missing: several processes write to one FILE, or FOLDER/, which each of them sees")
    whole = not (output.endswith("/") or Path(output).is_dir())
    pieces = Pieces(Path(output), writer.asked.ending, writer.identity(), whole)
    pieces.names = [pieces.name(each.number, each.digest()) for each in windows(named, writer.request)]
    pieces.check()
    return pieces


def _check(window: Window | None, pieces: Pieces, number: int) -> Window:
    """The window. Raises RequestError if it is of other sources than when the work was planned, or is not there."""
    if window is None or pieces.name(number, window.digest()) != pieces.names[number]:
        raise RequestError(f"window {number:,} has other sources than when the work was begun; start again")
    return window


def write_share(
    named: str,
    writer: Writer,
    pieces: Pieces,
    share: Share,
    noted: Callable[[Sequence[Note]], None],
    progress_of: Callable[[int, int], Progress | None],
) -> Done:
    """Write the pieces of a share that are not there, and join all if none is missing then.

    `progress_of` gives what is told of a window, by its size and the number of sources before it.
    """
    counts, written = Counts(), 0
    if pieces.is_joined():
        return Done(counts, len(pieces.names), 0, 0)
    mine = {number for number in pieces.missing() if share.has(number)}
    for window in islice(windows(named, writer.request), max(mine, default=-1) + 1):
        if window.number in mine:
            sources = _check(window, pieces, window.number).read()
            noted(sources.notes)
            text, found = writer.lines(sources, window.before, progress_of(window.size, window.before))
            pieces.write(window.number, text)
            counts, written = counts + found, written + 1
    missing = len(pieces.missing())
    if not missing:
        pieces.join()
    elif pieces.is_joined():  # by a process that was faster
        missing = 0
    return Done(counts, len(pieces.names), written, missing)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What another machine has to know to write windows: names and values, which it opens itself."""

    named: str  # the sources
    models: str | list[str]
    precision: str
    limits: dict[str, Any]
    asked: Asked
    pieces: Pieces
    size: int  # sources in a window

    def worker(self) -> Callable[[int], tuple[Counts, list[str]]]:
        """A function that writes a window by its number, and returns counts and what is to be told.

        Windows that follow each other are found without reading the file anew. Raises RequestError where this machine
        has another model.
        """
        torch.set_num_threads(1)  # there is a process for each core
        writer = Writer(load(self.models, precision=self.precision, **self.limits), self.asked)
        if writer.identity() != self.pieces.identity:
            problem = "is another model, or another version of sourcewise, than where the work was begun"
            raise RequestError(f"{socket.gethostname()}: {self.models} {problem}")
        before: list[Iterator[Window]] = []
        last = -1

        def write(number: int) -> tuple[Counts, list[str]]:
            nonlocal last
            if self.pieces.has(number):
                return Counts(), []  # by a machine that was lost later
            if number <= last or not before:
                before[:] = [windows(self.named, writer.request, size=self.size)]
                last = -1
            window = _check(next(islice(before[0], number - last - 1, None), None), self.pieces, number)
            last = number
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", Notice)
                sources = window.read()
                text, found = writer.lines(sources, window.before)
            self.pieces.write(number, text)
            notices = [str(each.message) for each in caught if issubclass(each.category, Notice)]
            return found, [*(f"{n.file}: {n.where}: {n.what}" for n in sources.notes if n.where), *notices]

        return write


def write_by_pool(machines: Machines, elsewhere: Elsewhere, progress_of: Callable[[int, int], Progress | None]) -> Done:
    """Write all windows that are missing by the machines of a cluster, and join them."""
    pieces = elsewhere.pieces
    if pieces.is_joined():
        return Done(Counts(), len(pieces.names), 0, 0)
    missing = pieces.missing()
    progress, counts = progress_of(len(missing), 0), Counts()
    results = over_pool(machines, elsewhere.worker, missing) if missing else iter(())
    for done, (found, said) in enumerate(results, 1):
        counts += found
        for text in said:
            tell(text)
        if progress is not None:
            progress(done, len(missing))
    left = len(pieces.missing())
    if not left:
        pieces.join()
    return Done(counts, len(pieces.names), len(missing) - left, left)
