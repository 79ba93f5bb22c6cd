"""What a Trainer's data set has and its batches have not: labels of its own, and columns of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from sourcewise.data.batches import IGNORED
from sourcewise.integrations.collated import LABELS, TEXT, Collation

ROWS = 8  # of a data set


def are_sources(batches: Sequence[Collation], pad_id: int) -> bool:
    """Whether the labels of all rows are their source's ids."""
    rows = 0
    for batch in batches:
        source, labels = batch.get(TEXT), batch.get(LABELS)
        if not isinstance(source, Tensor) or not isinstance(labels, Tensor) or source.ndim != 2:
            return False
        for one, other in zip(source.tolist(), labels.tolist(), strict=True):
            rows += 1
            if [i for i in one if i != pad_id] != [i for i in other if i not in (IGNORED, pad_id)]:
                return False
    return rows > 1


def in_data_set(rows: Any, pad_id: int) -> str:
    """In words, that a data set with rows of ids has labels of its own which are not its sources; "" where not.

    A few rows are read, of a set that can be asked for them; what is drawn for that is to be kept by the caller.
    """
    if not hasattr(rows, "__getitem__") or not hasattr(rows, "__len__"):
        return ""
    some = [rows[i] for i in range(min(ROWS, len(rows)))]
    pairs = [(_ids(row, TEXT, pad_id), _ids(row, LABELS, pad_id)) for row in some if isinstance(row, Mapping)]
    known = [(source, labels) for source, labels in pairs if source and labels]
    others = sum(source != labels for source, labels in known)
    if len(known) < 2 or 2 * others <= len(known):
        return ""
    return f"of {len(known)} rows of the data set {others} have others: the collator overwrites them"


def left_behind(rows: Any, batches: Sequence[Collation]) -> tuple[str, ...]:
    """The columns of a data set that hold matrices or vectors of fractions, and are in no batch: a Trainer removes what
    forward() does not name. One row is read, of a set that can be asked for it.
    """
    if not hasattr(rows, "__getitem__") or not hasattr(rows, "__len__") or not len(rows):
        return ()
    first, held = rows[0], {name for batch in batches for name in batch}
    if not isinstance(first, Mapping):
        return ()
    return tuple(str(name) for name, value in first.items() if name not in held and _is_of_fractions(value))


def _is_of_fractions(value: Any) -> bool:
    if not isinstance(value, (list, np.ndarray, Tensor)):
        return False
    try:
        table = np.asarray(value)
    except ValueError:  # rows of different lengths
        return False
    return table.ndim > 0 and table.dtype.kind == "f"


def _ids(row: Mapping[str, Any], name: str, pad_id: int) -> list[int]:
    table = np.asarray(row.get(name, ()))
    if table.ndim != 1 or table.dtype.kind not in "iu":
        return []
    return [int(i) for i in table if i not in (IGNORED, pad_id)]
