"""Rows of Parquet and Arrow files, and of shards, whose matrices stay in the files until they are used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sourcewise.data.formats.shards import Members
from sourcewise.data.formats.store import Store
from sourcewise.data.readers.records import Records
from sourcewise.data.readers.shards import left_out, lines_of, matrix_of, samples_of, text_columns, text_of
from sourcewise.data.readers.tables import Table, values_of
from sourcewise.errors import RequestError
from sourcewise.runtime.extras import parquet

ARROW = (".parquet", ".arrow", ".feather")


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
        if name in held:
            columns[name] = [""] * file.rows
        else:
            columns[name] = [value for part in file.parts(name) for value in values_of(part)]
    table = Table(str(path), columns, list(range(1, file.rows + 1)))
    stores: dict[str, Store] = {name: ArrowColumn(file, name) for name in held}
    return Records(table, stores)


def read_shards(path: Path) -> Records:
    """The rows of shards: `id`, the members of text and JSON, and the matrices. Raises RequestError."""
    found = samples_of(path)
    endings = list(dict.fromkeys(ending for sample in found.values() for ending in sample))
    texts = [ending for ending in endings if text_of(ending) and not matrix_of(ending)]
    columns, matrices = text_columns(found, {ending: ending for ending in texts}), dict[str, Store]()
    for ending in endings:
        if kind := matrix_of(ending):
            members = {str(i): each[ending] for i, each in enumerate(found.values()) if ending in each}
            held = {key: replace(member, ending=kind) for key, member in members.items()}
            matrices[ending], columns[ending] = Members(held), [""] * len(found)
    table = Table(str(path), columns, lines_of(found))
    if other := left_out(found):
        table.note(1, other)
    return Records(table, matrices)
