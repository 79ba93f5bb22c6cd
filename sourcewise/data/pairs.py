"""Pairs of texts: from .tsv, .jsonl and .parquet files, and from the hub through `datasets`."""

from __future__ import annotations

import contextlib
from pathlib import Path

from sourcewise.data import hub
from sourcewise.data.examples import Dataset, Example
from sourcewise.data.tables import Table, read_table
from sourcewise.errors import RequestError

HUB = "hub:"


def read_pairs(
    path: str | Path,
    *,
    source: str = "source",
    target: str | None = "target",
    split: str = "train",
    subset: str | None = None,
    limit: int | None = None,
) -> Dataset:
    """Text pairs of a file, or of `hub:NAME` (`split` and `subset` are for these).

    `source` and `target` name columns; `translation.en` reaches into a column of mappings. Without a target
    column (`target=None`) every target is empty. Ids come from a column `id`, else they count from 1.
    Raises RequestError that names the file, and the line where there is one.
    """
    if str(path).startswith(HUB):
        table = _read_hub(str(path)[len(HUB) :], split, subset)
    else:
        table = read_table(path)
    sources = table.text(source)[:limit]
    targets = table.text(target)[:limit] if target else [""] * len(sources)
    ids = table.text("id") if "id" in table.columns else [str(i + 1) for i in range(len(sources))]
    examples = [
        Example(id=ids[i], source=x, target=y, where=table.where(i))
        for i, (x, y) in enumerate(zip(sources, targets, strict=True))
    ]
    return Dataset(examples, name=table.name)


def _read_hub(name: str, split: str, subset: str | None) -> Table:
    try:
        import datasets
    except ImportError:
        raise RequestError(f"{HUB}{name}: needs the datasets library; pip install datasets") from None
    try:
        with contextlib.nullcontext() if Path(name).exists() else hub.patient_no_longer(name):
            read = datasets.load_dataset(name, subset, split=split)
    except Exception as error:  # the library raises a dozen kinds, some from the network
        where = f"{HUB}{name}" + (f" ({subset})" if subset else "")
        raise RequestError(f"{where}: split {split!r} cannot be loaded: {hub.reason(error)}") from None
    columns = {column: list(read[column]) for column in read.column_names}
    return Table(f"{HUB}{name}", columns, list(range(1, len(read) + 1)))
