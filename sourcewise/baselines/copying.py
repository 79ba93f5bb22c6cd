"""Copying: the target of the training example whose source is nearest. Whoever translates does better."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sourcewise.baselines.frames import Frames
from sourcewise.baselines.vectors import Vectors, nearest, ngrams, tf_idf
from sourcewise.data.examples import Dataset
from sourcewise.metrics.measure import Measure
from sourcewise.metrics.texts import words

HELD_BACK = 400  # training examples on which the ways of comparing sources are compared
WORD_ORDERS = (1, 2)
CHARACTER_ORDERS = (2, 3, 4)
CHARACTERS = 40_000_000  # of all sources that are read; long ones are compared by their beginnings


@dataclass(frozen=True, slots=True)
class Copied:
    """A target per source, and how sources were compared; `found` is false where no source had anything in common."""

    targets: list[str]
    found: list[bool]
    way: str


def copied(dataset: Dataset, training: Dataset, measure: Measure, *, own: bool) -> Copied:
    """The target of the nearest training source for each source of a set.

    Sources are compared in several ways; the one is taken that copies best for training examples which are held back,
    by the set's own figure. With `own` the set is its own training set, and no example copies itself.
    """
    targets = [example.target for example in training]
    held = np.unique(np.linspace(0, len(training) - 1, min(len(training), HELD_BACK)).astype(int))
    references = [training[i].references for i in held]
    itself = np.arange(len(dataset)) if own else None
    ways = list(_ways(dataset, training, own))
    tried = [[targets[i] for i in nearest(keys[held], keys, held)[0]] for _, keys, _ in ways]
    way, keys, queries = ways[measure.best_first(references, tried)[0]]
    places, cosines = nearest(queries, keys, itself)
    return Copied([targets[i] for i in places], list((cosines > 0).tolist()), way)


def _ways(dataset: Dataset, training: Dataset, own: bool) -> Iterator[tuple[str, Vectors, Vectors]]:
    """Name, vectors of the training sources, and vectors of the set's sources, per way of comparing."""
    if not training.dims:
        longest = CHARACTERS // len(training)
        both = [training] if own else [training, dataset]
        sides = [[example.source[:longest].casefold() for example in each] for each in both]
        for way, documents, orders in (("words", _words, WORD_ORDERS), ("characters", _characters, CHARACTER_ORDERS)):
            counts = [ngrams(each, orders) for each in documents(sides)]
            yield f"TF-IDF of {way}", *tf_idf(counts[0], counts[-1])
        return
    frames = Frames(training)
    keys = frames.look(training)
    yield from frames.vectors(keys, keys if own else frames.look(dataset))


def _words(sides: Sequence[Sequence[str]]) -> list[list[np.ndarray]]:
    """Words as ids, numbered over all sides."""
    ids: dict[str, int] = {}
    return [
        [np.array([ids.setdefault(w, len(ids)) for w in words(t)], dtype=np.uint64) for t in side] for side in sides
    ]


def _characters(sides: Sequence[Sequence[str]]) -> list[list[np.ndarray]]:
    """Characters as code points, with a space at both ends of a text."""
    return [[np.frombuffer(f" {t} ".encode("utf-32-le", "replace"), dtype=np.uint32) for t in side] for side in sides]
