"""Where large sets are kept on disk: a folder per set, made whole or not at all, and anew when its file changes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sourcewise.errors import RequestError
from sourcewise.native.compiled import user_cache
from sourcewise.runtime.extras import parquet
from sourcewise.runtime.files import write_atomically

VERSION = 1  # of the files: folders of another one are made anew
RECORD = "set.json"
PROBES, PROBE = 16, 65_536  # parts of a file that its identity depends on, and their bytes
ROW = 100  # bytes of a pair; equal cells are one in a Parquet file
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # numbers of errors: no room left
IDS_KEPT = 4  # tokenisations of a set, the newest


@dataclass(frozen=True, slots=True)
class Store:
    """The folder of kept sets; a file of at least `least` bytes is kept there."""

    folder: Path
    least: int

    @classmethod
    def of(cls, folder: str, megabytes: float) -> Store:
        """The store of a recipe: `folder`, or one in the user's cache."""
        place = Path(folder).expanduser() if folder else user_cache() / "sets"
        return cls(place.absolute(), int(megabytes * 1e6))

    def takes(self, path: Path) -> bool:
        """Whether the set of a file is kept."""
        return path.is_file() and _size(path) >= self.least

    def open(self, path: Path, options: dict[str, Any], make: Callable[[Path], dict[str, Any]]) -> tuple[Path, Any]:
        """(folder of a set, its record): of the file as it is now, read with these options.

        Where there is none, `make` fills an empty folder and returns the record. Raises RequestError.
        """
        named = json.dumps([str(path), str(path.absolute()), options, VERSION], sort_keys=True)
        folder = self.folder / f"{path.stem[:40]}-{hashlib.blake2b(named.encode(), digest_size=8).hexdigest()}"
        identity = _identity(path)
        found = _record(folder, identity)
        if found is None:
            with _made(folder) as part:
                record = make(part) | {"identity": identity, "file": str(path.absolute())}
                if _identity(path) != identity:
                    raise RequestError(f"{path}: changed while it was read; begin again when it is complete")
                write_atomically(part / RECORD, json.dumps(record) + "\n")
            found = _record(folder, identity)
        if found is None:
            raise RequestError(f"{folder}: is gone; does another program delete it?")
        return folder, found


def part_of(folder: Path, name: str, make: Callable[[Path], dict[str, Any]]) -> tuple[Path, Any]:
    """(subfolder, its record) of something that is made of a kept set; the oldest of many are deleted."""
    place = folder / name
    if (found := _record(place, name)) is None:
        with _made(place) as part:
            write_atomically(part / RECORD, json.dumps(make(part) | {"identity": name}) + "\n")
        found = _record(place, name)
    with contextlib.suppress(OSError):
        os.utime(place)
    others = sorted(folder.glob(f"{name.partition('-')[0]}-*"), key=lambda each: each.stat().st_mtime_ns)
    for old in others[:-IDS_KEPT]:
        shutil.rmtree(old, ignore_errors=True)  # whoever reads it now keeps its files open
    return place, found


def megabytes(folder: Path) -> float:
    """Size of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def _record(folder: Path, identity: str) -> Any | None:
    """The record of a folder that is complete and of this identity."""
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("identity") == identity else None


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[Path]:
    """Within: an empty folder, which takes the other's place when the block ends without an error.

    Raises RequestError if it cannot be made, or the disk is full.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    except OSError as error:
        raise _not_written(folder.parent, error) from None
    try:
        try:
            yield part
        except OSError as error:
            if error.errno in FULL:
                raise _not_written(folder.parent, error) from None
            raise
        old = part.with_suffix(".old")
        with contextlib.suppress(OSError):
            folder.rename(old)
        with contextlib.suppress(OSError):  # another process was faster, with the same
            part.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _not_written(folder: Path, error: OSError) -> RequestError:
    return RequestError(
        f"{folder}: cannot be written ({error.strerror}); data.store names another folder for large sets"
    )


def _size(path: Path) -> int:
    """Bytes of a file; of a Parquet file, unpacked, where a row has at least `ROW`."""
    if path.suffix.lower() == ".parquet":
        pyarrow = parquet(path)
        with contextlib.suppress(pyarrow.ArrowException, OSError):  # told when it is read
            known = pyarrow.parquet.read_metadata(path)
            unpacked = sum(known.row_group(i).total_byte_size for i in range(known.num_row_groups))
            return max(unpacked, ROW * known.num_rows)
    return path.stat().st_size


def _identity(path: Path) -> str:
    """A digest of a file's size, time of change, and some of its contents."""
    status = path.stat()
    digest = hashlib.blake2b(f"{status.st_size} {status.st_mtime_ns}".encode(), digest_size=12)
    with open(path, "rb") as file:
        for place in range(PROBES):
            file.seek(max(0, status.st_size - PROBE) * place // (PROBES - 1))
            digest.update(file.read(PROBE))
    return digest.hexdigest()
