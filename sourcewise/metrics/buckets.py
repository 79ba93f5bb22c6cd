"""Parts of a set that are scored on their own: by length, by frequency of words, by training text, by group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sourcewise.metrics.counting import References
from sourcewise.metrics.texts import plain, words

LENGTHS = 4  # buckets by length, of about equal size
OFTEN = (0, 9, 99)  # upper ends of the buckets by frequency; the last one has none
GROUPS = 12  # groups that are named; the others are one bucket


@dataclass(frozen=True, slots=True)
class Bucket:
    """Some examples of a set."""

    by: str  # length, frequency, training text, or the name of a group's column
    name: str
    rows: Sequence[int]  # their places in the set, in order


def by_length(references: References) -> list[Bucket]:
    """Up to four buckets of about equal size, by the words of the first reference; examples of one length stay
    together."""
    lengths = np.array([len(words(each[0])) for each in references])
    ends = sorted({int(np.quantile(lengths, (i + 1) / LENGTHS, method="lower")) for i in range(LENGTHS)})
    found, low = [], int(lengths.min())
    for end in ends:
        rows = np.flatnonzero((lengths >= low) & (lengths <= end)).tolist()
        name = f"{low} words" if low == end else f"{low} to {end} words"
        found.append(Bucket("length", name, rows))
        low = end + 1
    return found


def by_frequency(references: References, training: Sequence[str]) -> list[Bucket]:
    """By the rarest word of the first reference: how often it occurs in the training texts. Case does not matter."""
    counts = Counter(word for text in training for word in words(text.lower()))
    rarest = [min((counts[word] for word in words(each[0].lower())), default=0) for each in references]
    places = np.searchsorted(OFTEN, rarest)
    names = ["a word that is not in train", *(f"{low + 1} to {high} times" for low, high in pairwise(OFTEN))]
    names.append(f"{OFTEN[-1] + 1} times or more")
    rows = [np.flatnonzero(places == i).tolist() for i in range(len(names))]
    return [Bucket("rarest word", name, each) for name, each in zip(names, rows, strict=True) if each]


def by_training_text(references: References, training: Sequence[str]) -> list[Bucket]:
    """Whether a reference is also a target of the training set, but for case, Unicode form and spaces."""
    known = {plain(text.lower()) for text in training}
    seen = [any(plain(text.lower()) in known for text in each) for each in references]
    parts = {"text seen in train": True, "text not in train": False}
    rows = {name: [i for i, each in enumerate(seen) if each is flag] for name, flag in parts.items()}
    return [Bucket("training text", name, each) for name, each in rows.items() if each]


def by_group(groups: Mapping[str, Sequence[str]]) -> list[Bucket]:
    """Of every column of groups (signer, speaker, …) its values, the most frequent first; the rest as one bucket."""
    found = []
    for column, values in groups.items():
        commonest = [value for value, _ in Counter(values).most_common()]
        named = commonest if len(commonest) <= GROUPS else commonest[: GROUPS - 1]
        for value in named:
            found.append(Bucket(column, value or "(none)", [i for i, each in enumerate(values) if each == value]))
        if rest := set(commonest) - set(named):
            found.append(Bucket(column, f"{len(rest):,} others", [i for i, v in enumerate(values) if v in rest]))
    return found
