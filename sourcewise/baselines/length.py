"""A random training target of the reference's length: what length alone is worth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sourcewise.metrics.counting import References
from sourcewise.metrics.measure import Measure
from sourcewise.metrics.texts import words

DRAWS, REFERENCES = 9, 5000  # draws of a small set; of a larger one fewer, with so many references in all


def typical_of_equal_length(
    references: References, targets: Sequence[str], measure: Measure, *, own: bool
) -> list[str]:
    """Of several draws of `of_equal_length` the one with the median score, since of a small set they differ much."""
    count = max(1, min(DRAWS, REFERENCES // max(1, len(references))))
    first = [each[0] for each in references]
    draws = [of_equal_length(first, targets, own=own, seed=seed) for seed in range(count)]
    return draws[0] if count == 1 else draws[measure.best_first(references, draws)[(count - 1) // 2]]


def of_equal_length(references: Sequence[str], targets: Sequence[str], *, own: bool, seed: int = 0) -> list[str]:
    """For each reference a random target of as many words, or of the nearest number that there is.

    With `own` the references are the targets: none is given for itself. Raises ValueError where there is no target.
    """
    if len(targets) <= own:
        raise ValueError("no target to choose from")
    rng = np.random.default_rng(seed)
    sizes = np.array([len(words(text)) for text in targets])
    order = np.argsort(sizes, kind="stable")
    lengths, starts = np.unique(sizes[order], return_index=True)
    ends = np.append(starts[1:], len(order))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    found = []
    for i, reference in enumerate(references):
        wanted = int(sizes[i]) if own else len(words(reference))
        for k in np.argsort(np.abs(lengths - wanted), kind="stable")[:2]:
            start, inside = int(starts[k]), own and starts[k] <= place[i] < ends[k]
            if (size := int(ends[k]) - start - inside) > 0:
                drawn = start + int(rng.integers(size))
                found.append(targets[int(order[drawn + (inside and drawn >= place[i])])])
                break
    return found
