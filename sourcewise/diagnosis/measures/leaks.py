"""How many examples of one set are in another, beside how many are by nature.

Sets with few different texts share some without a fault: digits read out, dates, greetings. What is usual is measured
in the training set: the share of its examples that it also holds a second time.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

SURE = 3.5  # standard deviations from which on a share is more than usual
ROWS = 3  # rows that evidence names
BITS = 40  # of a text that nobody writes twice by chance


@dataclass(frozen=True, slots=True)
class Share:
    """`found` of `looked_at` examples, where `usual` of `usual_of` others are so by nature."""

    found: int
    looked_at: int
    usual: int = 0
    usual_of: int = 0

    @property
    def usual_share(self) -> float:
        """What is so by nature, 0..1."""
        return self.usual / self.usual_of if self.usual_of else 0.0

    @property
    def excess(self) -> float:
        """The share beyond the usual one; 0 where chance may explain it."""
        if self.found < 2:
            return 0.0
        share, size = self.found / self.looked_at, self.usual_of or self.looked_at
        pooled = (self.found + self.usual) / (self.looked_at + size)
        spread = math.sqrt(pooled * (1 - pooled) * (1 / self.looked_at + 1 / size))
        beyond = share - self.usual_share
        return beyond if beyond > SURE * spread else 0.0


def seen_share(parts: Sequence[Sequence[str]]) -> tuple[int, int]:
    """(examples whose text occurs again in its part, examples), of the part of a training where most do.

    By Good and Turing (1953) this is the probability that one text more is among those that are there.
    """
    shares = []
    for texts in parts:
        counts = Counter(texts)
        shares.append((len(texts) - sum(count == 1 for count in counts.values()), len(texts)))
    return max(shares, key=lambda pair: pair[0] / max(1, pair[1]), default=(0, 0))


class Rarity:
    """How improbable a text is, by how frequent its words are in others: in bits."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._counts = Counter(word for text in texts for word in text.split())
        self._all = sum(self._counts.values())

    def bits(self, text: str) -> float:
        """−log2 of the product of its words' shares; a new word counts as half a word that is there."""
        return -sum(math.log2((self._counts[word] or 0.5) / max(1, self._all)) for word in text.split())


def rows(places: Sequence[tuple[str, str]]) -> str:
    """Pairs of `file:line` in words, the first few: `line 3 (train.tsv:17), 9 (train.tsv:4), …`."""
    named = [f"{line(one)} ({other.rpartition('/')[2]})" for one, other in places[:ROWS]]
    return f"line{'s' * (len(places) > 1)} {', '.join(named)}" + ", …" * (len(places) > ROWS)


def line(where: str) -> str:
    """The line of a place `file:line`."""
    return where.rpartition(":")[2].strip()
