"""Several targets of an example: a list in a cell, or numbered columns beside the first (target2, target3, …)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count as numbers
from typing import Any

from sourcewise.data.examples import Dataset
from sourcewise.data.readers.tables import Table, first
from sourcewise.data.sequences import Same
from sourcewise.data.stored.columns import Column
from sourcewise.errors import RequestError

Others = Sequence[tuple[str, ...]]  # of every row its further targets; empty where there is one


def read_targets(table: Table, name: str, limit: int | None = None) -> tuple[Sequence[str], Others]:
    """The first targets of a column, and the others of each row; empty cells of numbered columns are none.

    Rows with a list that is empty or holds anything but texts are bad. What is read as several targets is noted.
    Raises RequestError if there is no such column.
    """
    lists = _lists(table, name, limit)
    firsts = table.text(name, limit)
    columns = _numbered(table, name)
    if not lists and not columns:
        return firsts, Same((), len(firsts))
    others: Others = [lists.get(row, ()) for row in range(len(firsts))]
    for column in columns:
        more = table.text(column, limit)
        others = [(*each, text) if text.strip() else each for each, text in zip(others, more, strict=True)]
    several = [row for row, each in enumerate(others) if each]
    if several:
        where = f" ({', '.join(columns)})" if columns else ""
        what = f"{len(several):,} rows have several targets{where}: the first is learnt, all are references"
        table.note(table.lines[several[0]], what)
    return firsts, others


def join_sources(dataset: Dataset) -> Dataset:
    """A set of texts with one example per source, the first; targets of its other rows are further references.

    Raises RequestError for features.
    """
    if dataset.dims:
        raise RequestError(f"{dataset.name}: join_sources compares texts; these sources are features")
    together: dict[str, list[int]] = {}
    for row, example in enumerate(dataset):
        together.setdefault(example.source, []).append(row)
    found = dataset.select([rows[0] for rows in together.values()])
    examples = []
    for example, rows in zip(found, together.values(), strict=True):
        texts = dict.fromkeys(text for row in rows for text in (dataset[row].target, *dataset[row].others))
        examples.append(replace(example, others=tuple(text for text in texts if text != example.target)))
    return replace(found, examples=examples)


def _numbered(table: Table, name: str) -> list[str]:
    """target2, target3, … as far as they go without a gap."""
    found: list[str] = []
    for number in numbers(2):
        if f"{name}{number}" not in table.columns:
            return found
        found.append(f"{name}{number}")
    return found


def _lists(table: Table, name: str, limit: int | None) -> dict[int, tuple[str, ...]]:
    """Row → further texts of its list; the column then holds the first ones."""
    values = table.columns.get(name)
    if values is None or (isinstance(values, Column) and values.is_text):
        return {}
    values = first(values, limit)
    if not any(isinstance(value, (list, tuple)) for value in values):
        return {}
    found: dict[int, tuple[str, ...]] = {}
    column: list[Any] = list(values)
    for row, value in enumerate(values):
        if not isinstance(value, (list, tuple)):
            continue
        if value and all(isinstance(each, str) for each in value):
            column[row], found[row] = value[0], tuple(value[1:])
            continue
        column[row] = ""
        what = f"{name!r} is an empty list" if not value else f"{name!r} is a list of other things than texts"
        table.bad.add(row, RequestError(f"{table.where(row)}: {what}; give one text or several", what))
    table.columns[name] = column
    return found
