"""Pairs of texts on disk: a table is read once, with all checks, and its texts are kept in the store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sourcewise.data.examples import Dataset, Kept, Note, Rows
from sourcewise.data.readers.pairs import Pairs, read_columns
from sourcewise.data.sequences import Changed, Coded, Lazy, Picked, Same, blocks
from sourcewise.data.stored.columns import Column, ColumnWriter
from sourcewise.data.stored.store import Store, megabytes
from sourcewise.errors import tell

NOTES, ARRAYS = "notes.json", "arrays.npz"


def stored_pairs(path: Path, store: Store, **options: Any) -> Dataset:
    """`read_pairs` of a large file: its examples are made on access, from texts that are kept in the store.

    Reads the file if it has changed since, or was read with other options. Raises RequestError as `read_pairs`.
    """
    folder, record = store.open(path, options, lambda part: _make(path, part, options))
    notes = [Note(**note) for note in json.loads((folder / NOTES).read_text(encoding="utf-8"))]
    return Dataset(_rows(folder, record), record["name"], notes=notes, kept=Kept(folder, record["identity"]))


def _make(path: Path, part: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Read a table into a folder; returns the record. Raises RequestError."""
    found = read_columns(path, **options, into=part)
    texts = {"sources": found.sources, "targets": found.targets, "ids": found.ids, "others": _others(found)}
    columns = {name: _written(column, part / name) for name, column in texts.items() if column is not None}
    kept = np.asarray(found.kept, dtype=np.int64)
    coded = {"groups": _coded(found.groups, kept, repr), "languages": _coded(found.languages, kept, tuple)}
    codes = {name: each.codes for name, each in coded.items()}
    lines = np.asarray(found.lines, dtype=np.int64)[kept]
    np.savez(part / ARRAYS, kept=kept, lines=lines, groups=codes["groups"], languages=codes["languages"])
    (part / NOTES).write_text(json.dumps([asdict(note) for note in found.notes]), encoding="utf-8")
    for file in part.iterdir():
        if file.name not in (NOTES, ARRAYS) and file.stem not in columns.values():
            file.unlink()  # a column that is no part of the pairs
    values = {name: list(each.values) for name, each in coded.items()}
    tell(f"{path}: {len(kept):,} pairs are kept on disk: {megabytes(part):,.0f} MB of texts in {part.parent}")
    return {"name": found.name, "columns": columns, "rows": len(found.sources), "values": values}


def _others(found: Pairs) -> Sequence[list[str]] | None:
    """Further references, as lists; None if there are none."""
    return None if isinstance(found.others, Same) else Changed(found.others, list)


def _written(column: Sequence[Any], path: Path) -> str:
    """The name of a column's file, which is written if it is not there yet."""
    if isinstance(column, Column):
        return column.path.name
    writer = ColumnWriter(path)
    for _, block in blocks(column):
        writer.add(block)
    return writer.done().path.name


def _coded(items: Sequence[Any], kept: np.ndarray, key: Any) -> Coded[Any]:
    if isinstance(items, Same):
        return Coded(np.zeros(len(kept), dtype=np.int32), [items.item])
    found = Coded.of(items, key)
    return Coded(found.codes[kept], found.values)


def _rows(folder: Path, record: dict[str, Any]) -> Rows:
    """The examples of a kept set."""
    with np.load(folder / ARRAYS) as arrays:
        kept, lines, codes = arrays["kept"], arrays["lines"], {n: arrays[n] for n in ("groups", "languages")}
    count, whole = len(kept), len(kept) == record["rows"]

    def column(name: str) -> Sequence[Any]:
        found = Column(folder / record["columns"][name]).head(record["rows"])
        return found if whole else Picked(found, kept)

    name, has = record["name"], record["columns"]
    return Rows(
        ids=column("ids") if "ids" in has else Lazy(lambda i: str(int(kept[i]) + 1), count),
        targets=column("targets"),
        sources=column("sources"),
        wheres=Lazy(lambda i: f"{name}:{int(lines[i])}", count),
        others=Changed(column("others"), tuple) if "others" in has else Same((), count),
        groups=_of_codes(codes["groups"], record["values"]["groups"]),
        languages=_of_codes(codes["languages"], [tuple(pair) for pair in record["values"]["languages"]]),
    )


def _of_codes(codes: np.ndarray, values: Sequence[Any]) -> Sequence[Any]:
    return Same(values[0], len(codes)) if len(values) == 1 else Coded(codes, values)
