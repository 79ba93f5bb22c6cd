"""Where the targets of a loop begin and end, by the batches that have passed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from sourcewise.data.batches import IGNORED
from sourcewise.diagnosis.observed import Edges
from sourcewise.integrations.collated import LABELS, MASK, TEXT
from sourcewise.integrations.loop.batches import Named
from sourcewise.integrations.loop.explained import begin_of
from sourcewise.integrations.loop.understood import Understood
from sourcewise.integrations.loop.watching import Watching

FEWEST = 64  # rows
MOSTLY = 0.95  # of the rows, whose target is longer than its source by the same number


def edges_of(kept: Sequence[Named], understood: Understood, seen: Watching) -> Edges | None:
    """Of the batches that have passed; None where they are few, or cannot be read."""
    rows: list[list[int]] = []
    lasts: list[int] = []  # of the sources
    tails: list[tuple[int, ...]] = []  # of the targets, padding included
    counted = replace(understood, hides_pad=False)
    lengths: list[int] = []
    firsts: list[int] = []
    for named in kept:
        try:
            batch = understood.collation(named)
            first, whole = _first_read(named, understood), counted.collation(named)[LABELS]
        except (IndexError, KeyError, RuntimeError):  # a batch of another shape
            continue
        rows += [row[row != IGNORED].tolist() for row in batch[LABELS]]
        lengths += batch[MASK].sum(1).tolist()
        lasts += _lasts(batch)
        tails += [tuple(row[row != IGNORED][-2:].tolist()) for row in whole]
        firsts += [] if first is None else first.tolist()
    kept_rows = [i for i, row in enumerate(rows) if row]
    if len(kept_rows) < FEWEST:
        return None
    last, ended = Counter(rows[i][-1] for i in kept_rows).most_common(1)[0]
    sizes = np.array([len(rows[i]) for i in kept_rows])
    longer = Counter((sizes - np.array([lengths[i] for i in kept_rows])).tolist()).most_common(1)[0][1]
    full = sum(len(rows[i]) == sizes.max() and rows[i][-1] != last for i in kept_rows)
    told = longer >= MOSTLY * len(kept_rows) and not _ended(lasts)  # whoever ends sources ends targets, too
    vary = bool((sizes != sizes[0]).any()) and not told
    begun = _begun(firsts, rows) if len(firsts) == len(rows) else None
    tail = Counter(tails).most_common(1)[0]
    repeated = tail[1] if len(set(tail[0])) == 1 and len(tail[0]) > 1 else 0
    return Edges(len(kept_rows), ended, full, vary, begun, repeated, *_pads(seen, understood.pad))


def _pads(seen: Watching, pad: int | None) -> tuple[int, int]:
    """Labels of padding that count in the step that was watched, all where it is not known; and all that count."""
    said = [each for call in seen.saying for each in call.said.values()]
    labels = sum(each.tokens for each in said)
    known = sum(int((each.counts & (each.labels == pad)).sum()) for each in said)
    return (labels if pad is None else known), labels


def _lasts(batch: dict[str, Tensor]) -> list[int]:
    if TEXT not in batch:
        return []
    ends = batch[MASK].sum(1).long().clamp(min=1) - 1
    return batch[TEXT].gather(1, ends[:, None].to(batch[TEXT].device))[:, 0].tolist()  # type: ignore[no-any-return]


def _ended(lasts: Sequence[int]) -> bool:
    return bool(lasts) and Counter(lasts).most_common(1)[0][1] >= MOSTLY * len(lasts)


def _begun(firsts: Sequence[int], rows: Sequence[Sequence[int]]) -> tuple[int, int, int]:
    counts, said = Counter(firsts), {label for row in rows for label in row}
    return len(counts), counts.most_common(1)[0][1], sum(first in said for first in firsts)


def _first_read(named: Named, understood: Understood) -> Tensor | None:
    """(batch,) the tokens before the first label of each row, where the target holds one that is no label."""
    made = understood.labels
    if made is None:
        return None
    table = named[made.path]
    if begin_of(made.words) == 1:
        table = table.t() if ".T" in made.words else table
        return table[:, 0] if "[:, " in made.words else table[0]
    for other in named.values():
        if other.ndim == table.ndim == 2 and not other.is_floating_point() and other is not table:
            for whole, axis in ((other[:, 1:], 1), (other[1:], 0)):
                if whole.shape == table.shape and bool((whole == table).all()):
                    return other.select(axis, 0)
    return None
