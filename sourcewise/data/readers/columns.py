"""Rows of Parquet and Arrow files, and of shards, whose matrices stay in the files until they are used."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sourcewise.data.formats.registry import formats
from sourcewise.data.formats.shards import Member, Members, samples
from sourcewise.data.formats.store import Store
from sourcewise.data.readers.cells import ABSENT
from sourcewise.data.readers.records import Records
from sourcewise.data.readers.tables import Table
from sourcewise.errors import RequestError
from sourcewise.runtime.extras import parquet

ARROW = (".parquet", ".arrow", ".feather")
_TEXTS = ("txt", "text", "json", "cls")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def is_shard(path: Path) -> bool:
    """Whether a name is that of a shard, or of several: x.tar, x-{0000..0012}.tar."""
    return path.name.lower().endswith((".tar", ".tar.gz", ".tgz"))


def holds_matrices(path: Path) -> bool:
    """Whether a Parquet or Arrow file has a column of matrices or recordings."""
    if path.suffix.lower() not in ARROW or not path.is_file():
        return False
    parquet(path)
    from sourcewise.data.formats.arrow import ArrowFile

    try:
        return bool(ArrowFile(path).matrices())
    except (ValueError, OSError):
        return False


def read_arrow(path: Path) -> Records:
    """The rows of a Parquet or Arrow file. Raises RequestError that names it."""
    parquet(path)
    from sourcewise.data.formats.arrow import ArrowColumn, ArrowFile

    try:
        file = ArrowFile(path)
    except ValueError as error:
        raise RequestError(f"{path}: {error}") from None
    except OSError as error:
        raise RequestError(f"{path}: {'no such file' if not path.exists() else error.strerror}") from None
    held = file.matrices()
    columns: dict[str, list[Any]] = {}
    for name in file.schema.names:
        columns[name] = [""] * file.rows if name in held else file.values(name)
    table = Table(str(path), columns, list(range(1, file.rows + 1)))
    stores: dict[str, Store] = {name: ArrowColumn(file, name) for name in held}
    return Records(table, stores)


def read_shards(path: Path) -> Records:
    """The rows of shards: `id`, the members of text and JSON, and the matrices. Raises RequestError."""
    found: dict[str, dict[str, Member]] = {}
    for shard in _shards(path):
        try:
            for name, sample in samples(shard).items():
                if name in found:
                    raise ValueError(f"holds {name!r}, as another shard does; each sample has one name")
                found[name] = sample
        except OSError as error:
            problem = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
            raise RequestError(f"{shard}: {problem}") from None
        except ValueError as error:
            raise RequestError(f"{shard}: {error}") from None
    endings = dict.fromkeys(ending for sample in found.values() for ending in sample)
    columns: dict[str, list[Any]] = {"id": list(found)}
    matrices: dict[str, Store] = {}
    for ending in endings:
        members = {str(i): each[ending] for i, each in enumerate(found.values()) if ending in each}
        if "." + ending.rpartition(".")[2] in formats() or "." + ending in formats():
            held = {key: _by_last_ending(member) for key, member in members.items()}
            matrices[ending], columns[ending] = Members(held), [""] * len(found)
        elif ending.rpartition(".")[2] in _TEXTS:
            _add_texts(columns, ending, members, list(found))
    return Records(Table(str(path), columns, list(range(1, len(found) + 1))), matrices)


def _by_last_ending(member: Member) -> Member:
    ending = member.ending if member.ending in formats() else "." + member.ending.rpartition(".")[2]
    return Member(member.shard, member.offset, member.size, ending)


def _shards(path: Path) -> list[Path]:
    """The files that {0000..0012} stands for."""
    found = _RANGE.search(str(path))
    if found is None:
        return [path]
    first, last = int(found[1]), int(found[2])
    width = len(found[1])
    return [Path(_RANGE.sub(f"{number:0{width}d}", str(path), count=1)) for number in range(first, last + 1)]


def _add_texts(columns: dict[str, list[Any]], ending: str, members: dict[str, Member], names: Sequence[str]) -> None:
    """Columns of the texts of members; those of JSON are its keys."""
    for row, name in enumerate(names):
        member = members.get(str(row))
        if member is None:
            continue
        try:
            text = member.read().decode("utf-8").strip("\n")
            values = json.loads(text) if ending.endswith("json") else {ending: text}
        except ValueError as error:
            raise RequestError(f"{member.shard}: {name}.{ending}: {str(error).splitlines()[0]}") from None
        if not isinstance(values, dict):
            raise RequestError(f"{member.shard}: {name}.{ending}: no JSON object")
        for key, value in values.items():
            if key != "id":
                columns.setdefault(key, [ABSENT] * len(names))[row] = value
