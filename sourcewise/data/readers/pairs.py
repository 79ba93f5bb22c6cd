"""Reads pairs of texts from .tsv, .csv, .jsonl and .parquet files, and from the hub through `datasets`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sourcewise.data.examples import Dataset, Example, Group, Note
from sourcewise.data.readers.bad_rows import blank_rows
from sourcewise.data.readers.delimited import Quoting
from sourcewise.data.readers.several import read_targets
from sourcewise.data.readers.tables import Table, listed, read_table
from sourcewise.data.sequences import Same
from sourcewise.errors import RequestError
from sourcewise.runtime import hub
from sourcewise.runtime.extras import taken

HUB = "hub:"


@dataclass(frozen=True, slots=True)
class Pairs:
    """The pairs of a table as columns of one length; those of the rows `kept` are used."""

    name: str  # the file or set
    ids: Sequence[str] | None  # None: they count from 1
    sources: Sequence[str]
    targets: Sequence[str]
    others: Sequence[tuple[str, ...]]
    groups: Sequence[Group]
    languages: Sequence[tuple[str, str]]
    lines: Sequence[int]
    kept: Sequence[int]
    notes: list[Note]


def read_pairs(path: str | Path, **options: Any) -> Dataset:
    """The pairs of a file, or of `hub:NAME`, as a set in memory; the options and errors are those of `read_columns`."""
    return in_memory(read_columns(path, **options))


def in_memory(found: Pairs) -> Dataset:
    """These pairs as a set in memory."""
    ids = found.ids if found.ids is not None else [str(row + 1) for row in range(len(found.sources))]
    wheres = [f"{found.name}:{line}" for line in found.lines]
    rows = zip(ids, found.targets, found.sources, wheres, found.others, found.groups, found.languages, strict=False)
    examples = [
        Example(name, reply, text, 0, where, others=more, group=group, languages=pair)
        for name, reply, text, where, more, group, pair in rows
    ]
    if len(found.kept) < len(examples):
        examples = [examples[row] for row in found.kept]
    return Dataset(examples, name=found.name, notes=found.notes)


def read_columns(
    path: str | Path,
    *,
    split: str = "train",
    subset: str | None = None,
    quoting: Quoting = "auto",
    into: Path | None = None,
    **options: Any,
) -> Pairs:
    """Text pairs of a file, or of `hub:NAME` with its `split` and `subset`; columns are files in the folder `into`.

    `quoting` is that of a .tsv or .csv; the other options are those of `pairs_of`. Raises RequestError.
    """
    if str(path).startswith(HUB):
        return pairs_of(_read_hub(str(path)[len(HUB) :], split, subset), **options)
    return pairs_of(read_table(path, quoting, into), **options)


def pairs_of(
    table: Table,
    *,
    source: str = "source",
    target: str | None = "target",
    limit: int | None = None,
    need_source: bool = True,
    skip_bad: bool = False,
    languages: tuple[str, str] = ("", ""),
    where: Mapping[str, str] | None = None,
) -> Pairs:
    """The pairs of a table.

    `source` and `target` name columns; `translation.en` selects a key in a column of mappings. A target may be a
    list, and columns such as `target2` hold more: the first is the target, the others are references. With
    `target=None` every target is empty. Ids come from a column `id`, else they count from 1. Rows with a blank source
    or target are bad; without `need_source`, or without targets, blank sources are only noted. Raises RequestError
    that names the file, counts the bad rows and names the first; with `skip_bad` bad rows are skipped and noted.
    `languages` are those of sources and targets, or `column:NAME`. With `where` only rows whose columns have these
    values are kept, and `limit` counts them.
    """
    most, limit = limit, None if where else limit
    sources = table.text(source, limit)
    count = len(sources)
    targets, others = read_targets(table, target, limit) if target else (Same("", count), Same((), count))
    ids = table.text("id", limit) if "id" in table.columns else None
    wheres, spoken = table.wheres(count), table.languages(languages, count)
    if target:
        table.bad.add_blank(targets, wheres, "the target is empty", "every example needs a text to produce")
        _look_for_blank(sources, wheres, table, need_source)
    kept, left_out = table.bad.settle(wheres, skip_bad)
    if where:
        kept = _chosen(table, where, kept)[:most]
    groups = table.groups(count, ("id", source, target or "", source.split(".")[0], (target or "").split(".")[0]))
    notes = [*table.notes, *left_out]
    return Pairs(table.name, ids, sources, targets, others, groups, spoken, table.lines[:count], kept, notes)


def _chosen(table: Table, where: Mapping[str, str], kept: Sequence[int]) -> Sequence[int]:
    """The rows whose columns have these values. Raises RequestError if there are none."""
    for column, value in where.items():
        cells = table.text(column)
        chosen = [row for row in kept if cells[row] == value]
        if not chosen:
            known = listed(dict.fromkeys(cells[row] for row in kept))
            raise RequestError(f"{table.name}: no row has {value!r} in the column {column}; there are {known}")
        kept = chosen
    return kept


def _look_for_blank(sources: Sequence[str], wheres: Sequence[str], table: Table, needed: bool) -> None:
    if needed:
        table.bad.add_blank(sources, wheres, "the source is empty", "every example needs something to read")
        return
    blank = blank_rows(sources)
    if blank:
        table.note(table.lines[blank[0]], f"{len(blank):,} sources are empty but for the prefix")


def load_hub(name: str, split: str, subset: str | None, *, streamed: bool = False) -> Any:
    """A split of a set of the hub, or of a folder, by the library datasets. Raises RequestError."""
    datasets = taken("datasets", "hub", f"{HUB}{name}: a set of the hub")
    try:
        with contextlib.nullcontext() if Path(name).exists() else hub.patient_no_longer(name):
            return datasets.load_dataset(name, subset, split=split, streaming=streamed)
    except Exception as error:  # the library raises many kinds, some from the network
        where = f"{HUB}{name}" + (f" ({subset})" if subset else "")
        raise RequestError(f"{where}: split {split!r} cannot be loaded: {hub.reason(error)}") from None


def _read_hub(name: str, split: str, subset: str | None) -> Table:
    read = load_hub(name, split, subset)
    columns = {column: list(read[column]) for column in read.column_names}
    return Table(f"{HUB}{name}", columns, list(range(1, len(read) + 1)))
