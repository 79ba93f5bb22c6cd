"""Reads pairs of texts from .tsv, .csv, .jsonl and .parquet files, and from the hub through `datasets`."""

from __future__ import annotations

import contextlib
from pathlib import Path

from sourcewise.data.examples import Dataset, Example
from sourcewise.data.readers.bad_rows import blank_rows
from sourcewise.data.readers.delimited import Quoting
from sourcewise.data.readers.several import read_targets
from sourcewise.data.readers.tables import Table, read_table
from sourcewise.errors import RequestError
from sourcewise.runtime import hub

HUB = "hub:"


def read_pairs(
    path: str | Path,
    *,
    source: str = "source",
    target: str | None = "target",
    split: str = "train",
    subset: str | None = None,
    limit: int | None = None,
    quoting: Quoting = "auto",
    need_source: bool = True,
    skip_bad: bool = False,
    languages: tuple[str, str] = ("", ""),
) -> Dataset:
    """Text pairs of a file, or of `hub:NAME` with its `split` and `subset`.

    `source` and `target` name columns; `translation.en` selects a key in a column of mappings. A target may be a
    list, and columns such as `target2` hold more: the first is the target, the others are references. With
    `target=None` every target is empty. Ids come from a column `id`, else they count from 1. `quoting` is that of a
    .tsv or .csv. Rows with a blank source or target are bad; without `need_source`, or without targets, blank
    sources are only noted. Raises RequestError that names the file, counts the bad rows and names the first; with
    `skip_bad` bad rows are skipped and noted. `languages` are those of sources and targets, or `column:NAME`.
    """
    if str(path).startswith(HUB):
        table = _read_hub(str(path)[len(HUB) :], split, subset)
    else:
        table = read_table(path, quoting)
    sources = table.text(source, limit)
    targets, others = read_targets(table, target, limit) if target else ([""] * len(sources), [()] * len(sources))
    ids = table.text("id", limit) if "id" in table.columns else [str(i + 1) for i in range(len(sources))]
    wheres, spoken = table.wheres(len(sources)), table.languages(languages, len(sources))
    if target:
        table.bad.add_blank(targets, wheres, "the target is empty", "every example needs a text to produce")
        _look_for_blank(sources, wheres, table, need_source)
    kept, left_out = table.bad.settle(wheres, skip_bad)
    groups = table.groups(
        len(sources), ("id", source, target or "", source.split(".")[0], (target or "").split(".")[0])
    )
    rows = zip(ids, targets, sources, wheres, others, groups, spoken, strict=True)
    examples = [
        Example(name, reply, text, 0, where, others=more, group=group, languages=pair)
        for name, reply, text, where, more, group, pair in rows
    ]
    if left_out:
        examples = [examples[row] for row in kept]
    return Dataset(examples, name=table.name, notes=[*table.notes, *left_out])


def _look_for_blank(sources: list[str], wheres: list[str], table: Table, needed: bool) -> None:
    if needed:
        table.bad.add_blank(sources, wheres, "the source is empty", "every example needs something to read")
        return
    blank = blank_rows(sources)
    if blank:
        table.note(table.lines[blank[0]], f"{len(blank):,} sources are empty but for the prefix")


def _read_hub(name: str, split: str, subset: str | None) -> Table:
    try:
        import datasets
    except ImportError:
        raise RequestError(f"{HUB}{name}: needs the datasets library; pip install datasets") from None
    try:
        with contextlib.nullcontext() if Path(name).exists() else hub.patient_no_longer(name):
            read = datasets.load_dataset(name, subset, split=split)
    except Exception as error:  # the library raises many kinds, some from the network
        where = f"{HUB}{name}" + (f" ({subset})" if subset else "")
        raise RequestError(f"{where}: split {split!r} cannot be loaded: {hub.reason(error)}") from None
    columns = {column: list(read[column]) for column in read.column_names}
    return Table(f"{HUB}{name}", columns, list(range(1, len(read) + 1)))
