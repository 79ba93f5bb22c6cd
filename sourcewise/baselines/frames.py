"""Feature matrices as vectors: pooled statistics, and codes of frames that are counted like words.

Matrices are read one at a time and never kept. What is learned of them (scale, codebook) is learned from a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from sourcewise.baselines.vectors import Vectors, ngrams, tf_idf, unit
from sourcewise.data.examples import Dataset

CLIPS, PER_CLIP = 2000, 20  # clips, and frames of each, that scale and codebook are learned from
WIDEST = 128  # dims of a frame; wider ones are projected at random, which keeps distances (Johnson & Lindenstrauss)
CODES = (64, 512)  # codes of the codebooks, fewer for few frames
FRAMES_PER_CODE = 20
ROUNDS = 15  # of k-means
REPEATED = 0.5  # frames that occur before, from which on frames are names of classes and no measurements
SAME = 1.25  # classes of two columns together, over those of one, up to which both name the same
MOST_BLOCKS = 8  # groups of columns
ORDERS = {"": (1,), " in their order": (1, 2, 3)}  # n-grams of codes
LEAST = 0.1  # deviation of pooled statistics, where frames have 1
THIRDS = 3  # parts of a clip that are pooled by themselves

Coded = Callable[[np.ndarray], np.ndarray]  # (frames, dims) → (frames,) ids


@dataclass(slots=True)
class Looked:
    """What is kept of the clips of a set: pooled statistics, and the runs of codes of each codebook."""

    pooled: np.ndarray
    runs: list[list[np.ndarray]] = field(default_factory=list)  # by codebook and clip


class Frames:
    """Scale, codebooks and pooled statistics of one kind of features, learned from a training set."""

    def __init__(self, training: Dataset, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        chosen = np.unique(np.linspace(0, len(training) - 1, min(len(training), CLIPS)).astype(int))
        sample = np.concatenate([_some(training.features(int(i)), rng) for i in chosen])
        self.mean, deviation = sample.mean(0), sample.std(0)
        self.scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 0)
        self.projection = None
        if sample.shape[1] > WIDEST:
            self.projection = rng.standard_normal((sample.shape[1], WIDEST)).astype(np.float32) / WIDEST**0.5
        blocks = blocks_of(sample)
        scaled = self._scaled(sample)
        sizes = dict.fromkeys(max(1, min(size, len(sample) // FRAMES_PER_CODE)) for size in CODES)
        self.books: dict[str, list[Coded]] = {
            f"{size} codes of frames": [_Clusters(_codebook(scaled, size, rng), self._scaled)] for size in sizes
        }
        if blocks:
            self.books["distinct frames"] = [_Names(columns, rng) for columns in blocks]

    def look(self, dataset: Dataset) -> Looked:
        """What is kept of each clip of a set."""
        coded = [book for books in self.books.values() for book in books]
        pooled, runs = [], [list[np.ndarray]() for _ in coded]
        for matrix in _matrices(dataset):
            pooled.append(_pooled(self._scaled(matrix)))
            for kept, book in zip(runs, coded, strict=True):
                ids = book(matrix)
                kept.append(ids[np.flatnonzero(np.diff(ids, prepend=ids[:1] + np.uint64(1)))])
        return Looked(np.stack(pooled), runs)

    def vectors(self, keys: Looked, queries: Looked) -> Iterator[tuple[str, Vectors, Vectors]]:
        """Per way of comparing clips: its name, and the vectors of both sets."""
        mean, deviation = keys.pooled.mean(0), np.maximum(keys.pooled.std(0), LEAST)
        yield "pooled statistics", *(unit((each.pooled - mean) / deviation) for each in (keys, queries))
        at = 0
        for name, books in self.books.items():
            for manner, orders in ORDERS.items():
                both = [_counts(each.runs[at : at + len(books)], orders) for each in (keys, queries)]
                yield f"TF-IDF of {name}{manner}", *tf_idf(*both)
            at += len(books)

    def _scaled(self, matrix: np.ndarray) -> np.ndarray:
        scaled = (matrix - self.mean) * self.scale
        return scaled if self.projection is None else scaled @ self.projection


@dataclass(frozen=True, slots=True)
class _Clusters:
    """Frames that are near one centre have one id: the number of the centre."""

    centres: np.ndarray
    scaled: Coded

    def __call__(self, matrix: np.ndarray) -> np.ndarray:
        return _nearest_code(self.scaled(matrix), self.centres).astype(np.uint64)


class _Names:
    """Frames that are equal in some columns have one id: the hash of these columns."""

    def __init__(self, columns: np.ndarray, rng: np.random.Generator) -> None:
        self.columns = columns
        self.factors = rng.integers(1, 2**63, len(columns), dtype=np.uint64) | np.uint64(1)

    def __call__(self, matrix: np.ndarray) -> np.ndarray:
        return names_of(matrix[:, self.columns], self.factors)


def names_of(values: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """(rows, columns) float32 → (rows,) uint64, equal for equal rows."""
    bits = (np.ascontiguousarray(values, dtype=np.float32) + np.float32(0)).view(np.uint32)  # −0 is 0
    return np.asarray((bits.astype(np.uint64) * factors).sum(1, dtype=np.uint64))


def blocks_of(sample: np.ndarray) -> list[np.ndarray]:
    """Groups of columns that name classes: the values of a group repeat, and change together.

    A recogniser's output, laid out as a fixed vector per class, is such a group; several recognisers are several.
    Empty where frames are measurements.
    """
    groups: list[tuple[np.ndarray, list[int]]] = []  # the rows' classes, and the columns that have them
    for column in range(sample.shape[1]):
        values, classes = np.unique(sample[:, column], return_inverse=True)
        if len(values) > REPEATED * len(sample):
            return []
        if len(values) == 1:
            continue
        for place, (kept, columns) in enumerate(groups):
            _, both = np.unique(kept * len(values) + classes, return_inverse=True)
            if both.max() < SAME * max(len(values), kept.max() + 1):
                groups[place] = both, [*columns, column]  # in float16 two classes may have one value in one column
                break
        else:
            groups.append((classes.astype(np.int64), [column]))
        if len(groups) > MOST_BLOCKS:  # as in images of few grey levels: no groups, but the whole frame may repeat
            return _whole(sample)
    return [np.array(columns) for _, columns in groups]


def _whole(sample: np.ndarray) -> list[np.ndarray]:
    """All columns as one group, if whole frames repeat."""
    distinct = len(np.unique(sample, axis=0))
    return [np.arange(sample.shape[1])] if distinct <= REPEATED * len(sample) else []


def _counts(runs: Sequence[Sequence[np.ndarray]], orders: Sequence[int]) -> Vectors:
    """(clips, buckets) n-grams of the runs of codes, each block of columns with its own."""
    counted = [ngrams(each, orders, salt) for salt, each in enumerate(runs)]
    return sum(counted[1:], start=counted[0])


def _matrices(dataset: Dataset) -> Iterator[np.ndarray]:
    for i in range(len(dataset)):
        yield dataset.features(i)


def _some(matrix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A few frames of a clip, at random."""
    return matrix[np.sort(rng.permutation(len(matrix))[:PER_CLIP])]


def _pooled(scaled: np.ndarray) -> np.ndarray:
    """Means and deviations of a clip, means of its thirds, and its length."""
    parts = np.array_split(scaled, THIRDS) if len(scaled) >= THIRDS else [scaled] * THIRDS
    length = np.array([np.log(len(scaled))], dtype=np.float32)
    return np.concatenate([scaled.mean(0), scaled.std(0), *(part.mean(0) for part in parts), length]).astype(np.float32)


def _codebook(frames: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """(size, dims) centres of the frames by k-means (Lloyd 1982)."""
    centres = frames[rng.permutation(len(frames))[:size]].copy()
    for _ in range(ROUNDS):
        codes = _nearest_code(frames, centres)
        counted = np.bincount(codes, minlength=size)
        order = np.argsort(codes, kind="stable")
        filled = np.flatnonzero(counted)
        starts = np.concatenate([[0], np.cumsum(counted[filled])[:-1]])
        centres[filled] = np.add.reduceat(frames[order], starts, axis=0) / counted[filled, None]
    return centres


def _nearest_code(frames: np.ndarray, centres: np.ndarray) -> np.ndarray:
    distance = (centres * centres).sum(1) - 2 * (frames @ centres.T)  # less the frame's own square
    return np.asarray(distance.argmin(1))
