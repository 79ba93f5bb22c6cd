"""Whether outputs are their references but for one change that is the same for all, as words in the other order."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

Texts = list[str]
_PIECES = re.compile(r"@@ ?|\u2581|(?<=\S) ##")  # BPE, SentencePiece and WordPiece, not put together


@dataclass(frozen=True, slots=True)
class Reworded:
    """A change, in words, and how many outputs are exactly right as they are and with it, of all that are not empty.

    `mark` is the word that is too much or missing, where it is the same in most.
    """

    what: str
    right: int
    changed: int
    rows: int
    mark: str = ""


def reworded(outputs: Sequence[str], references: Sequence[str]) -> Reworded | None:
    """The change by which most outputs are exactly right; None where all are empty. Words stand between spaces."""
    pairs = [(o.split(), r.split()) for o, r in zip(outputs, references, strict=True)]
    pairs = [(o, r) for o, r in pairs if r and o]
    if not pairs:
        return None
    right = sum(o == r for o, r in pairs)
    found = []
    for what, same, mark in CHANGES:
        changed = [(o, r) for o, r in pairs if o != r and same(o, r)]
        marks = Counter(mark(o, r) for o, r in changed)
        common = marks.most_common(1)[0] if marks else ("", 0)
        said = common[0] if common[1] > len(changed) / 2 else ""
        found.append(Reworded(what, right, right + len(changed), len(pairs), said))
    return max(found, key=lambda each: each.changed)


def _pieces(o: Texts, r: Texts) -> bool:
    return _PIECES.sub("", " ".join(o)).split() == r or "".join(o).replace("\u2581", " ").split() == r


def _none(o: Texts, r: Texts) -> str:
    return ""


CHANGES: tuple[tuple[str, Callable[[Texts, Texts], bool], Callable[[Texts, Texts], str]], ...] = (
    ("their words stand in the other order, from the last to the first", lambda o, r: o[::-1] == r, _none),
    (
        "their letters stand in the other order, from the last to the first",
        lambda o, r: " ".join(o)[::-1] == " ".join(r) and o[::-1] != r,
        _none,
    ),
    ("they have a word too much in front", lambda o, r: o[1:] == r, lambda o, r: o[0]),
    ("the first word of each is missing", lambda o, r: o == r[1:], lambda o, r: r[0]),
    ("the last word of each is missing", lambda o, r: o == r[:-1], lambda o, r: r[-1]),
    ("they go on behind their end", lambda o, r: len(o) > len(r) and o[: len(r)] == r, lambda o, r: o[len(r)]),
    ("spaces between their words are lost or added", lambda o, r: "".join(o) == "".join(r), _none),
    ("their words are still in pieces", _pieces, _none),
    ("each of their words stands there several times", lambda o, r: [k for k, _ in groupby(o)] == r, _none),
)
