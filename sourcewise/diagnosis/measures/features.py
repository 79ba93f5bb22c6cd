"""A sample of the matrices of a set of features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sourcewise.data.encoding import ExampleSet
from sourcewise.diagnosis.measures.forms import Form, form_of
from sourcewise.model.builder import CONSTANT

SAMPLE = 500  # matrices, spread through a set
MOSTLY = 0.5  # of the examples: where so many are one number throughout, a set tells nothing


@dataclass(frozen=True, slots=True)
class Summary:
    """A sample of matrices: `places` in the set, and what they hold.

    `means`, `lows` and `highs` are (examples, dims): mean, smallest and largest number of each example and dimension;
    `flat` (examples,) which are one number throughout; `mean` and `deviation` (dims,) over all frames. `forms` are of
    whole matrices, frames beyond `max_frames` included.
    """

    places: np.ndarray
    means: np.ndarray
    lows: np.ndarray
    highs: np.ndarray
    flat: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    forms: Sequence[Form]

    @property
    def still(self) -> np.ndarray:
        """(dims,) which dimensions never change."""
        return np.asarray((self.highs.max(0) - self.lows.min(0)) < CONSTANT)

    @property
    def constant(self) -> bool:
        """Whether there is nothing in it to compare."""
        return bool(self.flat.mean() >= MOSTLY or self.still.all())


def summarised(part: ExampleSet, size: int = SAMPLE) -> Summary:
    """Read a sample of a set, as far as `max_frames` lets the model see it. Raises RequestError."""
    places = np.linspace(0, len(part) - 1, min(len(part), size)).astype(int)
    means, lows, highs, flat, forms = [], [], [], [], []
    squares, frames = np.zeros(part.dataset.dims), 0
    for place in places:
        whole = part.dataset.features(int(place))
        forms.append(form_of(whole))
        matrix = whole[: part.max_frames].astype(np.float64)
        means.append(matrix.mean(0))
        lows.append(matrix.min(0))
        highs.append(matrix.max(0))
        flat.append(matrix.min() == matrix.max())
        squares += np.square(matrix).sum(0)
        frames += len(matrix)
    lengths = np.minimum([part.dataset[int(i)].frames for i in places], part.max_frames)
    mean = np.average(means, axis=0, weights=lengths)
    deviation = np.sqrt(np.maximum(squares / frames - mean**2, 0))
    return Summary(places, np.array(means), np.array(lows), np.array(highs), np.array(flat), mean, deviation, forms)
