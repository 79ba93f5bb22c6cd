"""The look of texts: their character trigrams, what nearly all have in common, and how they are written."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SAMPLE = 10_000  # texts that are looked at, spread evenly
CHARACTERS = 2000  # of a text, its beginning
HELD = 10  # of which every so manieth text is held back, to see how much is new in any text of the same kind
CLOSED = 100  # fewer distinct texts are a list that is complete, such as labels: there a text that comes twice is usual
COMMON = 0.95  # of the texts have a trigram that nearly all have
SHAPES = 3000  # most shapes that are kept, the commonest
_NOT_LATIN = re.compile(r"[^\W\d_A-Za-z\u00aa\u00ba\u00c0-\u024f\u0250-\u02ff\u1d00-\u1eff]")
_RUNS = [(re.compile(run), one) for run, one in (("aa+", "a"), ("AA+", "A"), (r"\s+", " "))]


class _Kinds(dict[int, str]):
    """Code point → its kind, of those that were seen."""

    def __missing__(self, code: int) -> str:
        c = chr(code)
        letter = c.isalpha() or unicodedata.combining(c)
        self[code] = kind = "9" if c.isdigit() else "A" if c.isupper() else "a" if letter else c
        return kind


_KINDS = _Kinds()

HABITS = {  # how a text is written: whether …
    "begins with a capital": lambda text: text[:1].isupper(),
    "holds a capital": lambda text: text != text.lower(),
    "is in capitals throughout": lambda text: text == text.upper() != text.lower(),
    "ends with a mark": lambda text: unicodedata.category(text[-1:] or " ").startswith("P"),
    "holds a mark with a space before it": lambda text: re.search(r"\w [.,!?;:]( |$)", text) is not None,
    "holds a digit": lambda text: "9" in text.translate(_KINDS),
    "is composed (NFC)": lambda text: unicodedata.normalize("NFC", text) == text,
    "holds a letter that is not Latin": lambda text: _NOT_LATIN.search(text) is not None,
    "has an accent": lambda text: any(unicodedata.normalize(form, text) != text for form in ("NFC", "NFD")),
}


@dataclass(frozen=True, slots=True)
class TextProfile:
    """Of a sample of texts. Shares are of texts, but for `fresh`, which is of trigrams."""

    size: int  # texts that were looked at
    trigrams: np.ndarray  # (n,) uint32, sorted: hashes of those that occur
    fresh: float  # share of trigrams that are new in held-back texts
    common: Mapping[str, float]  # trigrams that nearly all have, and how many
    habits: Mapping[str, float]
    shapes: Mapping[str, float]  # the commonest shapes
    odd: float  # share of held-back texts whose shape no other has
    words: float  # in a text, on average
    examples: Sequence[str] = ()  # a few, to show
    longest: int = 0  # words of the longest; 0: not known, of files of before

    def unseen(self, texts: Sequence[str]) -> float:
        """The share of the trigrams of texts that do not occur in these."""
        found = [hashed(text) for text in sampled(texts)]
        return _share_of_new(found, self.trigrams)

    def to_tree(self) -> dict[str, Any]:
        """All but the trigrams, as JSON-compatible values."""
        names = ("size", "fresh", "common", "habits", "shapes", "odd", "words", "examples", "longest")
        return {name: getattr(self, name) for name in names}


def profile_texts(texts: Sequence[str]) -> TextProfile:
    """The look of texts, of which at least one is needed."""
    some = sampled(texts)
    shapes = {text: shape(text) for text in some}
    distinct = list(dict.fromkeys(some))  # a text that comes twice would find itself among the others
    asked = some if len(distinct) < CLOSED else distinct
    held, kept = asked[::HELD], [text for i, text in enumerate(asked) if i % HELD]
    known, others = _all([hashed(text) for text in kept]), {shapes[text] for text in kept}
    held_grams = [hashed(text) for text in held]
    return TextProfile(
        len(some),
        _all([known, *held_grams]),
        _share_of_new(held_grams, known) if kept else 1.0,
        common_trigrams(some),
        habits(some),
        {each: count / len(some) for each, count in Counter(shapes[text] for text in some).most_common(SHAPES)},
        sum(shapes[text] not in others for text in held) / len(held) if kept else 1.0,
        float(np.mean([len(text.split()) for text in some])),
        [text[:80] for text in some[:: max(1, len(some) // 3)]][:3],
        max(len(text.split()) for text in some),
    )


def sampled(texts: Sequence[str]) -> list[str]:
    """At most `SAMPLE` texts, spread evenly, each by its beginning."""
    places = np.linspace(0, len(texts) - 1, min(len(texts), SAMPLE)).astype(int)
    return [texts[i][:CHARACTERS] for i in places]


def hashed(text: str) -> np.ndarray:
    """(n,) uint32: the character trigrams of a text, with a mark at both ends."""
    codes = np.frombuffer(f"\x02{text}\x03".encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    if len(codes) < 3:
        return np.zeros(0, dtype=np.uint32)
    mixed = (codes[:-2] * 0x9E3779B1 + codes[1:-1]) * 0x85EBCA77 + codes[2:]
    return np.asarray((mixed * np.uint64(0xC2B2AE3D27D4EB4F)) >> np.uint64(32), dtype=np.uint32)


def common_trigrams(texts: Sequence[str]) -> dict[str, float]:
    """The trigrams of letters that nearly all texts have, such as those of a prefix, and the share that has each."""
    least, counts = COMMON * len(texts), Counter[str]()
    _, hashes = np.unique(np.concatenate([np.unique(hashed(text)) for text in texts]), return_counts=True)
    if not len(hashes) or hashes.max() < least:
        return {}  # the usual case: counting letters takes long
    for text in texts:
        counts.update({text[i : i + 3] for i in range(len(text) - 2)})
    return {gram: count / len(texts) for gram, count in sorted(counts.items()) if count >= least}


def habits(texts: Sequence[str]) -> dict[str, float]:
    """The share of texts that have each of `HABITS`; empty texts have none."""
    return {name: sum(map(has, texts)) / len(texts) for name, has in HABITS.items()}


def shape(text: str) -> str:
    """How a text is made: runs of capitals are one A, of small letters one a; each digit is a 9, marks are themselves.

    "2020-01-31" → "9999-99-99"; "Hello you, Sir" → "Aa a, Aa".
    """
    kinds = text.translate(_KINDS)
    for run, one in _RUNS:
        kinds = run.sub(one, kinds)
    return kinds


def _all(each: Sequence[np.ndarray]) -> np.ndarray:
    return np.unique(np.concatenate(each)) if each else np.zeros(0, dtype=np.uint32)


def _share_of_new(each: Sequence[np.ndarray], known: np.ndarray) -> float:
    grams = np.concatenate(each) if each else np.zeros(0, dtype=np.uint32)
    return float((~np.isin(grams, known)).mean()) if len(grams) else 0.0
