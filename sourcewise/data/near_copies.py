"""Texts that are nearly the same, found by MinHash in seconds among 100,000.

Two texts are near copies if their sets of pieces of four characters (case and punctuation ignored) share 60 % or more
of all their pieces: Jaccard's index. One changed word in a sentence of ten leaves 70 to 80 %. Candidates are found by
48 minima of hashes in 16 bands of 3 (Broder 1997): pairs at 60 % are missed once in fifty, at 70 % once in a thousand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NEAR = 0.6  # Jaccard's index of near copies
PIECE = 4  # characters
BANDS, ROWS = 16, 3
LONGEST = 2000  # characters that are looked at
CHUNK = 4_000_000  # characters that are hashed at a time
MOST = 8  # candidates of a text that one band gives
CHECKED = 4  # candidates of a text whose index is computed
HOPEFUL = 0.4  # share of equal minima from which on it is
CERTAIN = 0.8  # and from which on it need not be
_GAP = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class NearCopy:
    """Text `place` is nearly text `other`: `likeness` is Jaccard's index."""

    place: int
    other: int
    likeness: float


def simplified(text: str) -> str:
    """The text as near copies are compared: small letters, digits, single spaces; signs only if it has no letters."""
    short = text[:LONGEST].casefold()
    return _GAP.sub(" ", short).strip() or " ".join(short.split())


class Fingerprints:
    """The fingerprints of some texts: `minima` is (texts, BANDS × ROWS) uint32."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = [simplified(text) for text in texts]
        self.minima = np.empty((len(self.texts), BANDS * ROWS), dtype=np.uint32)
        start = size = 0
        for stop, text in enumerate(self.texts, start=1):
            size += len(text)
            if size > CHUNK or stop == len(self.texts):
                self.minima[start:stop] = _minima(self.texts[start:stop])
                start, size = stop, 0
        self.empty = np.array([not text for text in self.texts], dtype=bool)
        self._sorted: list[tuple[np.ndarray, np.ndarray]] = []

    def bands(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Per band: the keys (texts,) in order, and the texts that they are of."""
        if not self._sorted:
            for keys in _keys(self.minima):
                order = np.argsort(keys, kind="stable")
                self._sorted.append((keys[order], order))
        return self._sorted


def near_copies(
    asked: Fingerprints,
    known: Fingerprints,
    *,
    labels: tuple[Sequence[object], Sequence[object]] | None = None,
    own: Sequence[int] | None = None,
) -> list[NearCopy]:
    """The most similar near copy among the `known` texts of each text `asked` that has one.

    Of several, one with the same label is preferred; `labels` are those of both. `own` are the places in `known` of
    the texts asked, where these are some of them: no text is its own copy.
    """
    places, others, same = _hopeful(asked, known, own)
    order = np.lexsort((others, -same, places))
    found: dict[int, list[NearCopy]] = {}
    tried: dict[int, int] = {}
    for place, other in zip(places[order].tolist(), others[order].tolist(), strict=True):
        tried[place] = tried.get(place, 0) + 1
        if tried[place] > CHECKED:
            continue
        likeness = jaccard(asked.texts[place], known.texts[other])
        if likeness >= NEAR:
            found.setdefault(place, []).append(NearCopy(place, other, likeness))

    def rank(copy: NearCopy) -> tuple[bool, float]:
        return (labels is not None and labels[0][copy.place] == labels[1][copy.other], copy.likeness)

    return [max(copies, key=rank) for copies in found.values()]


def clusters(texts: Sequence[str]) -> list[int]:
    """The number of the cluster that each text is in: near copies are in one, and so are near copies of these.

    Empty texts are alone.
    """
    prints = Fingerprints(texts)
    first: dict[str, int] = {}
    joined = Joined(len(texts))
    for place, text in enumerate(prints.texts):
        if text:
            joined.join(place, first.setdefault(text, place))
    own = list(first.values())
    unique = Fingerprints([prints.texts[place] for place in own])
    for place, other, same in zip(*(each.tolist() for each in _hopeful(unique, unique, range(len(own)))), strict=True):
        one, two = own[place], own[other]
        if joined.root(one) == joined.root(two):
            continue
        if same >= CERTAIN or jaccard(unique.texts[place], unique.texts[other]) >= NEAR:
            joined.join(one, two)
    return [joined.root(place) for place in range(len(texts))]


class Joined:
    """Places that are put together bit by bit; `root` is the first of all that are with a place."""

    def __init__(self, count: int) -> None:
        self._above = list(range(count))

    def root(self, place: int) -> int:
        """What all places that belong together have in common."""
        while self._above[place] != place:
            self._above[place] = self._above[self._above[place]]
            place = self._above[place]
        return place

    def join(self, one: int, other: int) -> None:
        """Put all that is with one to all that is with the other."""
        first, second = sorted((self.root(one), self.root(other)))
        self._above[second] = first


def jaccard(one: str, other: str) -> float:
    """The share of pieces that two simplified texts have in common."""
    left, right = _pieces(one), _pieces(other)
    return len(left & right) / max(1, len(left | right))


def _pieces(text: str) -> set[str]:
    padded = f" {text} "
    return {padded[i : i + PIECE] for i in range(max(1, len(padded) - PIECE + 1))}


def _hopeful(
    asked: Fingerprints, known: Fingerprints, own: Sequence[int] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (place, other) with the share of their minima that are the same, which estimates Jaccard's index."""
    places, others = _candidates(asked, known, own)
    same = np.empty(len(places), dtype=np.float32)
    for start in range(0, len(places), CHUNK // 16):
        part = slice(start, start + CHUNK // 16)
        same[part] = (asked.minima[places[part]] == known.minima[others[part]]).mean(axis=1)
    hopeful = same >= HOPEFUL
    return places[hopeful], others[hopeful], same[hopeful]


def _candidates(asked: Fingerprints, known: Fingerprints, own: Sequence[int] | None) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (place, other) that agree in a band: at most `MOST` per text and band."""
    pairs = []
    rows = np.flatnonzero(~asked.empty)
    mine = np.full(len(asked.texts), -1) if own is None else np.asarray(own)
    for keys, (ordered, order) in zip(_keys(asked.minima[rows]), known.bands(), strict=True):
        first, last = np.searchsorted(ordered, keys, "left"), np.searchsorted(ordered, keys, "right")
        for step in range(MOST + (own is not None)):
            inside = first + step < last
            others = order[(first + step)[inside]]
            places = rows[inside]
            fine = (others != mine[places]) & ~known.empty[others]
            pairs.append(places[fine].astype(np.int64) * len(known.texts) + others[fine])
    unique = np.unique(np.concatenate(pairs)) if pairs else np.empty(0, dtype=np.int64)
    return unique // max(1, len(known.texts)), unique % max(1, len(known.texts))


def _keys(minima: np.ndarray) -> list[np.ndarray]:
    """Per band one uint64 key a text."""
    wide = minima.astype(np.uint64)
    keys = []
    for band in range(BANDS):
        key = np.zeros(len(wide), dtype=np.uint64)
        for row in range(ROWS):
            key = (key ^ wide[:, band * ROWS + row]) * np.uint64(0x9E3779B97F4A7C15)
            key ^= key >> np.uint64(29)
        keys.append(key)
    return keys


def _minima(texts: Sequence[str]) -> np.ndarray:
    """(texts, BANDS × ROWS) uint32: per hash function its minimum over the pieces of each text."""
    padded = [f" {text} ".ljust(PIECE) for text in texts]
    letters = np.frombuffer("".join(padded).encode("utf-32-le", errors="surrogatepass"), dtype=np.uint32)
    sizes = np.array([len(text) for text in padded])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    hashes = np.zeros(len(letters) - PIECE + 1, dtype=np.uint32)
    for i in range(PIECE):
        hashes = hashes * np.uint32(0x01000193) + letters[i : len(letters) - PIECE + 1 + i]
    hashes = _mixed(hashes)
    inside = np.zeros(len(letters) + 1, dtype=np.int8)  # whether a piece lies within one text
    np.add.at(inside, starts, 1)
    np.add.at(inside, starts + sizes - PIECE + 1, -1)
    kept = np.cumsum(inside[: len(hashes)], dtype=np.int32) > 0
    hashes = hashes[kept]
    begins = np.concatenate([[0], np.cumsum(sizes - PIECE + 1)[:-1]])
    rng = np.random.default_rng(4)  # any numbers, but always the same
    factors, masks = rng.integers(0, 2**31, (2, BANDS * ROWS), dtype=np.uint32)
    found = np.empty((len(texts), BANDS * ROWS), dtype=np.uint32)
    for k, (factor, mask) in enumerate(zip(factors, masks, strict=True)):
        found[:, k] = np.minimum.reduceat((hashes ^ mask) * (factor * np.uint32(2) + np.uint32(1)), begins)
    return found


def _mixed(hashes: np.ndarray) -> np.ndarray:
    """The bits of uint32 numbers mixed (the end of MurmurHash3)."""
    hashes = (hashes ^ (hashes >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    hashes = (hashes ^ (hashes >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return np.asarray(hashes ^ (hashes >> np.uint32(16)))
