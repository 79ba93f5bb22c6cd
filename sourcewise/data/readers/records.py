"""Rows that come with their matrices: pickles of records, annotations in .npy, Parquet and Arrow, shards, folders."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sourcewise.data.formats.npy import NPY
from sourcewise.data.formats.pickles import is_pickle, load_pickle, resolved, unpickle
from sourcewise.data.formats.store import Arrays, Store
from sourcewise.data.formats.trees import array_of, as_text, load_torch, name_of
from sourcewise.data.readers.cells import ABSENT
from sourcewise.data.readers.tables import Table
from sourcewise.errors import RequestError

_TORCH = (".pt", ".pth")
ENDINGS = (*_TORCH, ".pkl", ".pickle", ".pkl.gz", ".pickle.gz")  # of records, or of matrices alone


@dataclass(slots=True)
class Records:
    """A table, and for its columns that hold matrices a store of them by row ("0", "1", …)."""

    table: Table
    matrices: dict[str, Store] = field(default_factory=dict)


def are_records(path: Path) -> bool:
    """Whether a file holds rows with their matrices, or an annotation, in a pickle, also inside .npy or .pt."""
    name = path.name.lower()
    if name.endswith(ENDINGS):
        try:
            return any(isinstance(each, Mapping) for each in _entries(resolved(_loaded(path))).values())
        except (ValueError, OSError):
            return False
    if name.endswith(NPY):
        return path.is_file() and _has_objects(path)
    return path.suffix.lower() not in (".tsv", ".csv", ".jsonl", ".json", ".txt") and is_pickle(path)


def read_records(path: Path) -> Records:
    """The rows of such a file. Raises RequestError that names it."""
    try:
        tree = _loaded(path)
    except ValueError as error:
        raise RequestError(f"{path}: {error}") from None
    except OSError as error:
        problem = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise RequestError(f"{path}: {problem}") from None
    rows, others = _rows(resolved(tree))
    if not rows:
        kind = type(resolved(tree)).__name__
        what = "a list or dict of records, each with its name, text and features"
        raise RequestError(f"{path}: holds a {kind} without records; as a manifest it should hold {what}")
    found = _columns(path, rows)
    if others:
        shown = ", ".join(repr(each) for each in others[:3])
        found.table.note(1, f"{len(others):,} entries are no records ({shown}): left out")
    return found


def _loaded(path: Path) -> Any:
    """What a file holds; the last one is kept, since it is asked for what it is before it is read."""
    status = path.stat()
    return _loaded_once(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(1)
def _loaded_once(path: Path, changed: int, size: int) -> Any:
    name = path.name.lower()
    if name.endswith(_TORCH):
        return load_torch(path)
    if not name.endswith(NPY):
        return load_pickle(path)
    with open(path, "rb") as file:
        _npy_header(file)
        return resolved(unpickle(file))


def _npy_header(file: Any) -> np.dtype[Any]:
    major, _ = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    dtype: np.dtype[Any] = read(file)[2]
    return dtype


def _has_objects(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return _npy_header(file).hasobject
    except (OSError, ValueError, SyntaxError):
        return False


def _entries(tree: Any) -> dict[Any, Any]:
    """The entries of a list or dict, by place or name."""
    while isinstance(tree, list) and len(tree) == 1 and _is_table(resolved(tree[0])):
        tree = resolved(tree[0])  # np.save of a dict
    if isinstance(tree, Mapping):
        return {as_text(name): entry for name, entry in tree.items()}
    return dict(enumerate(tree)) if isinstance(tree, (list, tuple)) else {}


def _rows(tree: Any) -> tuple[list[dict[str, Any]], list[Any]]:
    """The records of a list, or of a dict by name or number; and the places of what is no record."""
    rows, others = [], []
    for key, entry in _entries(tree).items():
        if isinstance(entry, Mapping):
            row = {str(as_text(name)): value for name, value in entry.items()}
            rows.append(row if "id" in row or not isinstance(key, str) else {**row, "id": name_of(row, key)})
        elif isinstance(key, str) and array_of(resolved(entry)) is not None:
            rows.append({"id": key, "features": entry})
        else:
            others.append(key)
    return rows, others


def _is_table(tree: Any) -> bool:
    return isinstance(tree, Mapping) and any(isinstance(each, Mapping) for each in tree.values())


def _columns(path: Path, rows: Sequence[Mapping[str, Any]]) -> Records:
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns: dict[str, list[Any]] = {}
    matrices: dict[str, Store] = {}
    for name in names:
        values = [resolved(row.get(name, ABSENT)) for row in rows]
        arrays = {str(i): found for i, value in enumerate(values) if (found := array_of(value)) is not None}
        if arrays:
            matrices[name] = Arrays(arrays)
        columns[name] = ["" if str(i) in arrays else as_text(value) for i, value in enumerate(values)]
    return Records(Table(str(path), columns, list(range(1, len(rows) + 1))), matrices)
