"""The text of a file in pieces of whole lines, so that a file of any size can be read, several times if need be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from sourcewise.data.readers.lines import decode_text, marked, open_binary, read_bytes
from sourcewise.errors import RequestError

SIZE = 16 << 20  # bytes of a piece; a smaller file is one


def _unchanged(text: str) -> str:
    return text


class Pieces:
    """The decoded text of a file, in pieces that end with a line; `mend` is applied to each.

    A file whose line ends or encoding can only be understood as a whole is one piece. Raises RequestError as
    `decode_text`, with the same counts whatever the pieces.
    """

    def __init__(self, path: str | Path, mend: Callable[[str], str] = _unchanged) -> None:
        self.path, self.name, self._mend = path, str(path), mend
        self._whole: str | None = None
        if not _is_long_and_plain(path):
            self._whole = mend(decode_text(read_bytes(path), self.name))

    def __iter__(self) -> Iterator[str]:
        if self._whole is not None:
            yield self._whole
            return
        before = 0
        with open_binary(self.path) as stream:
            while data := stream.read(SIZE):
                data += stream.readline()
                try:
                    text = decode_text(data, self.name, before)
                except RequestError:
                    decode_text(read_bytes(self.path), self.name)  # says how many lines of the file are wrong
                    raise
                yield self._mend(text)
                before = 1


def _is_long_and_plain(path: str | Path) -> bool:
    """Whether a file is longer than a piece, without NULs, and UTF-8 with no line ends but \\n and \\r\\n."""
    with open_binary(path) as stream:
        data = stream.read(SIZE)
        if marked(data) or len(data) < SIZE:
            return False
        held = b""
        while data:
            data = held + data
            held = b"\r" if data.endswith(b"\r") else b""  # its \n may follow
            data = data[: len(data) - len(held)]
            if b"\0" in data or data.count(b"\r") != data.count(b"\r\n"):
                return False
            data = stream.read(SIZE)
    return not held
