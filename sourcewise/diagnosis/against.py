"""What the rules over a set that is evaluated on are given, where texts are ids: examples beside those that passed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from sourcewise.data.batches import IGNORED

FEWEST = 24  # examples of either
AGAIN = 0.9  # of the examples behind the first that came before, that did, too, where all data comes again


@dataclass(frozen=True)
class Held:
    """Examples of a training, or of an evaluation: a key of each, ids of its source (() for features) and target."""

    keys: Sequence[Hashable]
    sources: Sequence[Sequence[int]]
    targets: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Against:
    """The examples of an evaluation beside those of the training that passed first."""

    trained: Held
    own: Held
    name: str = ""

    about = "an evaluation beside the training data"

    @property
    def enough(self) -> bool:
        """Whether shares mean something."""
        return min(len(self.trained.keys), len(self.own.keys)) >= FEWEST

    @property
    def seen(self) -> int:
        """How many of the examples that are evaluated were trained on, as far as is known."""
        known = set(self.trained.keys)
        return sum(key in known for key in self.own.keys)

    @property
    def usual(self) -> float:
        """The share of examples of the training that come a second time in it by nature."""
        return repeated(self.trained.keys)


def repeated(keys: Sequence[Hashable]) -> float:
    """The share of these that stand there before, but for the first of each; of a set that is gone through several
    times, within the first.
    """
    known: set[Hashable] = set()
    first, again = 0, 0
    for place, key in enumerate(keys):
        again += key in known
        first = first or (place if key in known else 0)
        known.add(key)
    if first and again >= AGAIN * (len(keys) - first):  # all data comes again from there on
        return 0.0
    return again / max(1, len(keys))


def held_of(sources: Tensor, real: Tensor, labels: Tensor) -> Held:
    """Of a batch: sources (batch, time) of ids or (batch, frames, dims), where they are real, and labels."""
    content, mask, said = sources.detach().cpu(), real.detach().cpu().bool(), labels.detach().cpu()
    words = content.ndim == 2 and not content.is_floating_point()
    rows = [content[i][mask[i]].numpy() for i in range(len(content))]
    goals = [row[row != IGNORED].numpy() for row in said]
    keys = [_key(a, b) for a, b in zip(rows, goals, strict=True)]
    return Held(keys, [row.tolist() if words else [] for row in rows], [goal.tolist() for goal in goals])


def joined(parts: Sequence[Held]) -> Held:
    """Several as one."""
    names = ("keys", "sources", "targets")
    return Held(*([each for part in parts for each in getattr(part, name)] for name in names))


def _key(source: np.ndarray, target: np.ndarray) -> int:
    return hash((source.shape, source.astype(np.float32).tobytes(), target.astype(np.int64).tobytes()))


def edge(rows: Sequence[Sequence[int]], place: int) -> tuple[int, float]:
    """The commonest id at the beginning (0) or the end (-1) of some rows, and the share of rows that have it."""
    ids = [row[place] for row in rows if len(row) > 1]
    if not ids:
        return -1, 0.0
    common, times = Counter(ids).most_common(1)[0]
    return common, times / len(ids)


def share_at(rows: Sequence[Sequence[int]], place: int, token: int) -> float:
    """The share of rows that have this id at their beginning or end."""
    ids = [row[place] for row in rows if len(row) > 1]
    return sum(i == token for i in ids) / max(1, len(ids))


def risen(trained: Sequence[Sequence[int]], own: Sequence[Sequence[int]]) -> tuple[int, float, float]:
    """The id whose share of all tokens has risen most, and its share before and now."""
    before, now = (Counter(i for row in rows for i in row) for rows in (trained, own))
    shares = {i: (before[i] / max(1, before.total()), times / now.total()) for i, times in now.items()}
    if not shares:
        return -1, 0.0, 0.0
    token = max(shares, key=lambda i: shares[i][1] - shares[i][0])
    return (token, *shares[token])


def strange(trained: Sequence[Sequence[int]], own: Sequence[Sequence[int]]) -> tuple[float, float]:
    """The share of the tokens of some rows whose ids the training never has; and of the training's second half, those
    that its first has not.
    """
    middle = len(trained) // 2
    return _new(trained, own), _new(trained[:middle], trained[middle:])


def _new(before: Sequence[Sequence[int]], now: Sequence[Sequence[int]]) -> float:
    known = {i for row in before for i in row}
    ids = [i for row in now for i in row]
    return sum(i not in known for i in ids) / max(1, len(ids))
