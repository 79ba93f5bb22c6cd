"""A long output in pieces, a file each, so that several processes write it and one that was killed goes on.

A piece is whole or not there. Its name has its number, and a digest of what it is made from: a piece of another request
is never taken for one of this. Nobody talks to anybody: who has written its share looks whether all pieces are there,
and the last one joins them.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from sourcewise.errors import RequestError
from sourcewise.runtime.files import check_writable, write_atomically, writing

NAMED = re.compile(r"\d{6,}-[0-9a-f]{12}\.\w+")
CHUNK = 1 << 24  # bytes


@dataclass(frozen=True, slots=True)
class Share:
    """Which pieces are a process's own: those whose number leaves the remainder `index` when divided by `of`."""

    index: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Share:
        """`0/3`, the first of three. Raises RequestError."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if not found or int(found[1]) >= int(found[2]):
            raise RequestError(f"--shard {text}: is I/N, such as 0/3, the first of three, or 2/3, the last")
        return cls(int(found[1]), int(found[2]))

    def has(self, number: int) -> bool:
        """Whether a piece is its own."""
        return number % self.of == self.index


@dataclass(slots=True)
class Pieces:
    """The pieces of an output, which is a file, or a folder that holds them.

    Those of a file are in a folder beside it, `FILE.parts`, until they are joined.
    """

    output: Path
    ending: str  # of the pieces: ".txt"
    identity: str  # of the request, beside what each piece is made from
    whole: bool = True  # whether they are joined to a file
    names: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """The folder of the pieces."""
        return self.output.with_name(f"{self.output.name}.parts") if self.whole else self.output

    @property
    def joined(self) -> Path:
        """The file that says from what the output was joined."""
        return self.folder / "joined.json"

    def check(self) -> None:
        """Raises RequestError unless the pieces can be written, and a folder of theirs holds no others."""
        if self.whole:
            check_writable(self.output)
        check_writable(self.folder / "0")
        foreign = sorted(self.there() - set(self.names))
        if foreign and not self.whole:
            problem = f"{len(foreign):,} of its files, such as {foreign[0]}, are of another request"
            raise RequestError(f"{self.output}: {problem}; name another folder, or empty this one")

    def name(self, number: int, made_from: str) -> str:
        """The name of a piece."""
        digest = hashlib.sha256(f"{self.identity} {made_from}".encode()).hexdigest()
        return f"{number:06}-{digest[:12]}{self.ending}"

    def there(self) -> set[str]:
        """Names of the pieces that are in the folder, of this request or another."""
        if not self.folder.is_dir():
            return set()
        return {path.name for path in self.folder.iterdir() if NAMED.fullmatch(path.name)}

    def has(self, number: int) -> bool:
        """Whether a piece is there."""
        return (self.folder / self.names[number]).is_file()

    def missing(self) -> list[int]:
        """Numbers of the pieces that are not there."""
        there = self.there()
        return [number for number, name in enumerate(self.names) if name not in there]

    def write(self, number: int, text: str) -> None:
        """Write a piece. Raises RequestError."""
        write_atomically(self.folder / self.names[number], text)

    def is_joined(self) -> bool:
        """Whether the output is there, as it was joined from these pieces."""
        try:
            return bool(json.loads(self.joined.read_text(encoding="utf-8")) == self._record())
        except (OSError, ValueError):
            return False

    def join(self) -> None:
        """Join the pieces, all of which are there, to the output; it appears at once, and they go.

        Two processes may do so at a time. Raises RequestError where the output cannot be written.
        """
        if not self.whole:
            return
        try:
            with writing(self.output) as write:
                for name in self.names:
                    with (self.folder / name).open("rb") as file:
                        while data := file.read(CHUNK):
                            write(data)
        except FileNotFoundError:
            if self.is_joined():  # by another process, which has removed the pieces
                return
            raise
        write_atomically(self.joined, json.dumps(self._record()) + "\n")
        for name in self.there():
            (self.folder / name).unlink(missing_ok=True)

    def _record(self) -> dict[str, object]:
        there = self.output.stat()
        digest = hashlib.sha256("\n".join(self.names).encode()).hexdigest()
        return {"from": digest, "size": there.st_size, "mtime_ns": there.st_mtime_ns}
