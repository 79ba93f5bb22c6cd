"""The samples of WebDataset's shards: which files a name stands for, and the texts among their members as columns."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sourcewise.data.formats.registry import formats
from sourcewise.data.formats.shards import Member, samples
from sourcewise.data.readers.cells import ABSENT
from sourcewise.errors import RequestError

TAR = ".tar"
FIRST = 100  # samples that say what a shard holds
_TEXTS = ("txt", "text", "transcript", "cls", "source", "target", "src", "tgt", "json")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")

Sample = dict[str, Member]  # ending → member
Samples = Mapping[str, Sample]


def is_shard(path: Path) -> bool:
    """Whether a name is that of a shard, or of several: x.tar, x-{0000..0012}.tar."""
    return path.name.lower().endswith((TAR, ".tar.gz", ".tgz"))


def holds_features(path: Path) -> bool:
    """Whether the first samples have a member that is a matrix or a recording, or the shard cannot be read."""
    try:
        return any(matrix_of(ending) for sample in samples(shards_of(path)[0], FIRST).values() for ending in sample)
    except (OSError, ValueError):
        return True


def matrix_of(ending: str) -> str:
    """The format that reads members of this ending: ".npy" of "rgb.npy"; empty if none does."""
    return next((each for each in ("." + ending, "." + ending.rpartition(".")[2]) if each in formats()), "")


def text_of(ending: str) -> bool:
    """Whether members of this ending are texts, or JSON."""
    return ending.rpartition(".")[2] in _TEXTS


def shards_of(path: Path) -> list[Path]:
    """The files that {0000..0012} stands for. Raises ValueError if it stands for none."""
    found = _RANGE.search(str(path))
    if found is None:
        return [path]
    first, last, width = int(found[1]), int(found[2]), len(found[1])
    if last < first:
        raise ValueError(f"{found[0]} stands for no number; the first one is the smaller")
    return [Path(_RANGE.sub(f"{number:0{width}d}", str(path), count=1)) for number in range(first, last + 1)]


def samples_of(path: Path) -> dict[str, Sample]:
    """The samples of all shards that a name stands for. Raises RequestError that names the shard."""
    found: dict[str, Sample] = {}
    for shard in named_shards(path):
        for name, sample in of_shard(shard).items():
            if name in found:
                raise RequestError(f"{shard}: holds {name!r}, as another shard does; each sample has one name")
            found[name] = sample
    return found


def named_shards(path: Path) -> list[Path]:
    """`shards_of` with its error as a RequestError."""
    try:
        return shards_of(path)
    except ValueError as error:
        raise RequestError(f"{path}: {error}") from None


def of_shard(shard: Path) -> dict[str, Sample]:
    """The samples of one shard; the last ones are kept. Raises RequestError that names it."""
    try:
        status = shard.stat()
        return _of_shard(shard, status.st_mtime_ns, status.st_size)
    except OSError as error:
        problem = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise RequestError(f"{shard}: {problem}") from None
    except ValueError as error:
        raise RequestError(f"{shard}: {error}") from None


@functools.lru_cache(4)
def _of_shard(shard: Path, changed: int, size: int) -> dict[str, Sample]:
    return samples(shard)


def text_columns(found: Samples, name_of: Mapping[str, str]) -> dict[str, list[Any]]:
    """`id`, and a column for each text ending in `name_of`, called as it says; JSON gives one for each of its keys.

    Raises RequestError for a member that is no UTF-8, or no JSON object, and where two members give one column.
    """
    columns: dict[str, list[Any]] = {"id": list(found)}
    for row, (name, sample) in enumerate(found.items()):
        for ending, column in name_of.items():
            member = sample.get(ending)
            if member is None:
                continue
            for key, value in _values(member, f"{member.shard}: {name}.{ending}", ending, column).items():
                cells = columns.setdefault(key, [ABSENT] * len(found))
                if key != "id" and cells[row] is not ABSENT:
                    problem = f"gives {key!r}, as another of its members does; call one otherwise"
                    raise RequestError(f"{member.shard}: {name}.{ending}: {problem}")
                if key != "id":
                    cells[row] = value
    return columns


def _values(member: Member, where: str, ending: str, column: str) -> dict[str, Any]:
    try:
        text = member.read().decode("utf-8-sig").rstrip("\r\n")
        values = json.loads(text) if ending.endswith("json") else {column: text}
    except ValueError as error:
        raise RequestError(f"{where}: {str(error).splitlines()[0]}") from None
    if not isinstance(values, dict):
        raise RequestError(f"{where}: no JSON object")
    return values


def pair_columns(found: Samples) -> dict[str, list[Any]]:
    """The columns of a set of texts: of `src.txt` the column is `src`, of `txt` it is `txt`. Raises RequestError."""
    endings = list(dict.fromkeys(ending for sample in found.values() for ending in sample if text_of(ending)))
    return text_columns(found, {each: re.sub(r"(?<=.)\.(txt|text)$", "", each) for each in endings})


def left_out(found: Samples) -> str:
    """The members that are neither text nor matrix, in words; empty if there are none."""
    counts: dict[str, int] = {}
    for sample in found.values():
        for ending in sample:
            if not (text_of(ending) or matrix_of(ending)):
                counts[ending] = counts.get(ending, 0) + 1
    told = ", ".join(f".{ending} ({count:,})" for ending, count in list(counts.items())[:5])
    return f"members of these endings are not read: {told}" if counts else ""


def lines_of(found: Samples) -> Sequence[int]:
    """The numbers of the samples, from 1."""
    return range(1, len(found) + 1)
