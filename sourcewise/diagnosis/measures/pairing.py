"""Do the sources and targets of a set belong together? Texts and features."""

from __future__ import annotations

from functools import cache

import numpy as np

from sourcewise.data.encoding import ExampleSet
from sourcewise.diagnosis.measures.alignment import CLEAR, WHOLE, Pairing, Sides, pairing, relation
from sourcewise.diagnosis.measures.sides import Features, Side, Texts, in_thirds


def pairing_of(part: ExampleSet) -> Pairing:
    """What is known of a set's pairing."""
    return pairing(part.dataset, _sides(part))


def goes_by_order(part: ExampleSet, places: np.ndarray) -> bool:
    """Whether sources go with the target of the next of these places as well as with their own, in each comparison.

    So it is where a set drifts from its beginning to its end, and sources tell no more than where in it they stand.
    """
    sides, some = _sides(part), np.linspace(0, len(places) - 2, min(len(places) - 1, WHOLE)).astype(int)
    own = dict(relation(*sides(places[some], places[some])).found)
    moved = dict(relation(*sides(places[some], places[some + 1])).found)
    return max((deviations - moved.get(view, 0.0) for view, deviations in own.items()), default=0.0) < CLEAR


def _sides(part: ExampleSet) -> Sides:
    """The rows of a set at some positions: whole texts and whole matrices, whatever of them a model is to see."""
    data = part.dataset
    summed = cache(lambda place: in_thirds(data.features(place)))  # quarters are asked for again, one row further

    def rows(left: np.ndarray, right: np.ndarray) -> tuple[Side, Texts]:
        target = Texts([data[int(i)].target for i in right], [part.targets[int(i)] for i in right])
        if data.dims:
            frames = [data[int(i)].frames for i in left]
            return Features(np.stack([summed(int(i)) for i in left]), frames), target
        assert part.sources is not None
        return Texts([data[int(i)].source for i in left], [part.sources[int(i)] for i in left]), target

    return rows
