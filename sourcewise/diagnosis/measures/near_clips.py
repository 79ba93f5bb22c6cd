"""Clips of features that are nearly the same, or parts of the same: copies with noise, crops, shifted cuts.

Each clip is cut into windows. For some windows of a clip, at every phase, the nearest window of all others is looked
up; what it proposes, another clip and a shift, is checked frame by frame over all that the two share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sourcewise.data.examples import Dataset
from sourcewise.model.builder import CONSTANT

WINDOW = 16  # frames, at most
DIRECTIONS = 24  # in which windows are compared
WIDE = 256  # dimensions above which they are thrown together at random first
ANCHORS = 3  # stretches of a clip that are looked up
PHASES = 2  # at which each of them asks for what is ALIKE
ALIKE = 7  # windows besides the nearest
CHECKED = 8  # proposals per clip that are looked at frame by frame
SHARED = 0.5  # of the shorter clip that both must share
STILL = 0.05  # of the deviation of all frames: what changes less, such as silence, tells nothing
FRAMES = 4_000_000  # of the set that is searched: more are sampled
NUMBERS = 400_000_000  # of the same: 1.6 GB pass through
PRODUCTS = 1_500_000_000  # windows compared with windows
BLOCK = 4_000_000  # of these at a time


@dataclass(frozen=True, slots=True)
class NearClip:
    """Clip `place` is clip `other`, `shift` frames later, over `frames` frames, but for `apart` of its deviation."""

    place: int
    other: int
    shift: int
    frames: int
    apart: float


class Clips:
    """The windows of a set of features, as far as these bounds go: `places` are the clips that were read."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.frames = np.array([example.frames for example in dataset], dtype=np.int64)
        self.window = int(np.clip(np.percentile(self.frames, 10) // 3, 1, WINDOW))
        self.hop = max(1, self.window // 2)
        most = min(FRAMES, NUMBERS // dataset.dims)
        count = len(dataset) if self.frames.sum() <= most else max(1, int(most / self.frames.mean()))
        self.places = np.linspace(0, len(dataset) - 1, count).astype(int)
        self._learn_directions()
        tables = [self.means(int(place))[:: self.hop] for place in self.places]
        sizes = np.array([len(table) for table in tables])
        self.ends = np.cumsum(sizes)
        means = np.concatenate(tables)
        squares = np.square(means).sum(1, keepdims=True)
        # A product with `asked_for` is then a squared distance: one pass over a large table instead of four.
        self.windows = np.concatenate((means, squares, np.ones_like(squares)), axis=1).astype(np.float32)
        self.of = np.repeat(np.arange(len(sizes)), sizes)  # window → index in `places`

    def _learn_directions(self) -> None:
        """Mean and deviation of the frames, and the directions in which they differ most."""
        some = self.places[np.linspace(0, len(self.places) - 1, min(200, len(self.places))).astype(int)]
        frames = np.concatenate([self.dataset.features(int(place)) for place in some]).astype(np.float64)
        self.mean, deviation = frames.mean(0), frames.std(0)
        self.scale = np.where(deviation > CONSTANT, deviation, np.inf)
        self.raw_scale = max(float(np.sqrt(np.square(deviation).mean())), CONSTANT)
        dims = self.dataset.dims
        first = np.eye(dims)
        if dims > WIDE:
            first = np.random.default_rng(5).standard_normal((dims, WIDE)) / np.sqrt(WIDE)
        pooled = ((frames - self.mean) / self.scale) @ first
        _, vectors = np.linalg.eigh(pooled.T @ pooled)
        directions = (first @ vectors[:, ::-1][:, :DIRECTIONS]) / self.scale[:, None]
        self.directions = directions.astype(np.float32)
        self.offset = (self.mean @ directions).astype(np.float32)

    def first(self, clip: int) -> int:
        """The first window of a clip."""
        return int(self.ends[clip - 1]) if clip else 0

    def means(self, place: int, dataset: Dataset | None = None) -> np.ndarray:
        """(windows, directions): the mean of each window of a clip, one per frame that it may begin at."""
        flat = (dataset or self.dataset).features(place) @ self.directions - self.offset
        sums = np.concatenate([np.zeros((1, flat.shape[1])), np.cumsum(flat, axis=0, dtype=np.float64)])
        return np.asarray((sums[self.window :] - sums[: -self.window]) / self.window)

    @staticmethod
    def asked_for(means: np.ndarray) -> np.ndarray:
        """(windows, directions + 2): what times `windows` is their squared distances."""
        squares = np.square(means).sum(1, keepdims=True)
        return np.concatenate((-2 * means, np.ones_like(squares), squares), axis=1).astype(np.float32)

    def most_asked(self) -> int:
        """How many clips may be looked up."""
        return max(20, PRODUCTS // max(1, len(self.windows) * ANCHORS * self.hop))


def near_clips(asked: Dataset, places: Sequence[int], known: Clips, *, own: bool = False) -> list[NearClip]:
    """The nearest clip of each clip of `asked` at `places` that shares frames with one, however far apart.

    With `own` these are clips of the known set itself; no clip is its own copy.
    """
    found = []
    hidden = {int(place): k for k, place in enumerate(known.places)} if own else {}
    queries = [_anchors(known.means(place, asked), known) for place in places]
    for group in _blocks(queries, len(known.windows)):
        vectors = np.concatenate([queries[k][1] for k in group])
        far = vectors @ known.windows.T
        begin = 0
        for k in group:
            starts = queries[k][0]
            mine = far[begin : begin + len(starts)]
            begin += len(starts)
            if places[k] in hidden:
                mine[:, known.first(hidden[places[k]]) : known.ends[hidden[places[k]]]] = np.inf
            best = _best(asked, places[k], known, _proposals(starts, mine, known))
            if best:
                found.append(best)
    return found


def _blocks(queries: list[tuple[np.ndarray, np.ndarray]], windows: int) -> list[list[int]]:
    """Clips in groups whose windows are looked up together."""
    groups: list[list[int]] = []
    size = BLOCK
    for k, (starts, _) in enumerate(queries):
        if not len(starts):
            continue
        if size + len(starts) * windows > BLOCK:
            groups.append([])
            size = 0
        groups[-1].append(k)
        size += len(starts) * windows
    return groups


def _anchors(means: np.ndarray, known: Clips) -> tuple[np.ndarray, np.ndarray]:
    """(starts, vectors) of the windows of a clip to look up: in each third the most unusual, at every phase."""
    if not len(means):
        return np.empty(0, dtype=int), np.empty((0, known.windows.shape[1]), dtype=np.float32)
    last = max(0, len(means) - known.hop)
    unusual = np.square(means[: last + 1]).sum(1)
    edges = np.linspace(0, last + 1, ANCHORS + 1).astype(int)
    thirds = [(a, b) for a, b in pairwise(edges) if b > a]
    anchors = {a + int(unusual[a:b].argmax()) for a, b in thirds}
    starts = sorted({start for a in anchors for start in range(a, min(a + known.hop, len(means)))})
    return np.array(starts), known.asked_for(means[starts])


def _proposals(starts: np.ndarray, far: np.ndarray, known: Clips) -> list[tuple[int, int]]:
    """(other clip, shift): what most of the anchors propose, then the nearest. `far` is (starts, known windows)."""
    nearest = far.min(1)
    votes: dict[tuple[int, int], tuple[int, float]] = {}
    for run in np.split(np.arange(len(starts)), np.flatnonzero(np.diff(starts) > 1) + 1):  # of neighbouring anchors
        count = PHASES * max(1, round(len(run) / known.hop))
        for k in run[np.argsort(nearest[run], kind="stable")][:count]:
            alike = min(ALIKE, far.shape[1] - 1)  # the same stretch may be in several clips
            for window in np.argpartition(far[k], alike)[: alike + 1]:
                clip = int(known.of[window])
                shift = (int(window) - known.first(clip)) * known.hop - int(starts[k])
                of = (int(known.places[clip]), shift)
                before = votes.get(of, (0, np.inf))
                votes[of] = (before[0] - 1, min(before[1], float(far[k, window])))
    return sorted(votes, key=lambda of: votes[of])[:CHECKED]


def _best(asked: Dataset, place: int, known: Clips, proposals: Sequence[tuple[int, int]]) -> NearClip | None:
    """The nearest of the proposals, frame by frame."""
    matrix = asked.features(place)
    found = []
    for other, shift in proposals:
        shared = _overlap(len(matrix), int(known.frames[other]), shift)
        if shared is None:
            continue
        left = matrix[shared[0] : shared[1]]
        right = known.dataset.features(other)[shared[0] + shift : shared[1] + shift]
        apart = _apart(left, right, known)
        if apart is not None:
            found.append(NearClip(place, other, shift, len(left), apart))
    return min(found, key=lambda clip: clip.apart, default=None)


def _overlap(mine: int, its: int, shift: int) -> tuple[int, int] | None:
    """The frames that two clips share; None if too few."""
    begin, end = max(0, -shift), min(mine, its - shift)
    return (begin, end) if end - begin >= max(1, SHARED * min(mine, its)) else None


def _apart(left: np.ndarray, right: np.ndarray, known: Clips) -> float | None:
    """How far two stretches differ, over how much they change; √2 if unrelated; None if they hardly change."""
    found = []
    for scale in (known.scale, known.raw_scale):
        one, other = ((side - known.mean) / scale for side in (left, right))
        centres = (one.mean(0), other.mean(0)) if len(one) >= 4 else (0.0, 0.0)
        moves = (np.square(one - centres[0]).mean() + np.square(other - centres[1]).mean()) / 2
        if moves >= STILL:
            found.append(float(np.sqrt(np.square(one - other).mean() / moves)))
    return min(found, default=None)
