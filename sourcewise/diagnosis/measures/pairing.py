"""Do the sources and targets of a set belong together? Texts and features."""

from __future__ import annotations

from functools import cache

import numpy as np

from sourcewise.data.encoding import ExampleSet
from sourcewise.diagnosis.measures.alignment import Pairing, Sides, pairing
from sourcewise.diagnosis.measures.sides import Features, Side, Texts, in_thirds


def pairing_of(part: ExampleSet) -> Pairing:
    """What is known of a set's pairing."""
    return pairing(part.dataset, _sides(part))


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
