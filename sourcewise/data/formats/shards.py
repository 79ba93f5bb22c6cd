"""Shards as WebDataset writes them: uncompressed tar files, whose members of one name make a sample.

Nothing is extracted: members are read where they lie in the file.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sourcewise.config.data import Sounds
from sourcewise.data.formats.npy import NPY, NpyFile
from sourcewise.data.formats.registry import open_bytes
from sourcewise.data.formats.store import Header, Store, heard


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside a tar file."""

    shard: Path
    offset: int
    size: int
    ending: str  # ".npy"

    def read(self) -> bytes:
        """Its bytes. Raises ValueError if the shard is cut off."""
        with open(self.shard, "rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) < self.size:
            raise ValueError(f"is cut off in {self.shard.name}; write the shard again")
        return data


class Members:
    """The array of each of these members, by key. Of an .npy only the rows that are asked for are read."""

    def __init__(self, members: dict[str, Member], sounds: Sounds = "log-mel") -> None:
        self._members, self._sounds = members, sounds

    def heard(self, sounds: Sounds) -> Members:
        """The same members, with recordings as these frames."""
        return Members(self._members, sounds)

    def keys(self) -> Sequence[str]:
        """The keys, in order."""
        return list(self._members)

    def _store(self, key: str) -> tuple[Store, str]:
        member = self._members[key]
        if member.ending == NPY:
            return NpyFile(member.shard, (member.offset, member.size)), ""
        store = heard(open_bytes(io.BytesIO(member.read()), member.ending), self._sounds)
        keys = store.keys()
        if len(keys) != 1:
            raise ValueError(f"holds {len(keys):,} arrays; a member of a shard should hold one")
        return store, keys[0]

    def header(self, key: str) -> Header:
        """Shape and type."""
        store, inside = self._store(key)
        return store.header(inside)

    def read(self, key: str, rows: slice) -> np.ndarray:
        """These rows of an array."""
        store, inside = self._store(key)
        return store.read(inside, rows)


def samples(shard: Path, most: int | None = None) -> dict[str, dict[str, Member]]:
    """Name → ending → member, of each sample in a shard, or of the first `most`. Raises ValueError or OSError."""
    found: dict[str, dict[str, Member]] = {}
    try:
        with tarfile.open(shard, "r:") as file:
            for member in file:
                if most is not None and len(found) > most:
                    found.popitem()
                    break
                folder, _, last = member.name.rpartition("/")
                name, dot, ending = last.partition(".")
                if not member.isfile() or not dot:
                    continue
                sample = found.setdefault(f"{folder}/{name}" if folder else name, {})
                if ending.lower() in sample:
                    raise ValueError(f"holds {member.name!r} twice; write the shard again")
                sample[ending.lower()] = Member(shard, member.offset_data, member.size, "." + ending.lower())
    except tarfile.ReadError as error:
        hint = "; unpack it with gunzip" if shard.name.endswith("gz") else ""
        raise ValueError(f"is no uncompressed tar file ({error}){hint}") from None
    return found
