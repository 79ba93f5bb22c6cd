"""Which id of texts that are ids alone looks like the one for what is not known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

FREQUENT = 0.3  # of the places
KINDS = 8  # different ids, fewer are an alphabet
AGAIN = 0.5  # of its odds: how often it stands behind itself; what separates words never does
LONG = 1.6  # times its odds: what is said in long runs, such as silence, does so more often


def likely_unknown(rows: Iterable[Sequence[int]]) -> int | None:
    """The id that stands in so many places, and behind itself about as often as elsewhere; None where there is none.

    Ids that begin or end all rows are to be left out before.
    """
    texts = [list(row) for row in rows]
    counts = Counter(i for row in texts for i in row)
    total = sum(counts.values())
    if len(counts) < KINDS:
        return None
    ((found, times),) = counts.most_common(1)
    behind = [b == found for row in texts for a, b in pairwise(row) if a == found]
    if times < FREQUENT * total or not behind:
        return None
    again, usual = sum(behind) * (total - times), (len(behind) - sum(behind)) * times  # odds, each times the other's
    return found if AGAIN * usual <= again <= LONG * usual else None
