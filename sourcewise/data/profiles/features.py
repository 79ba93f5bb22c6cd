"""The look of feature matrices: level and spread of each dimension, how they go together, and how they move in time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sourcewise.data.examples import Dataset

CLIPS = 300  # matrices that are read, spread evenly
WIDEST = 64  # dimensions whose correlations are kept, the same of every set


@dataclass(frozen=True, slots=True)
class FeatureProfile:
    """Of a sample of matrices (frames, dims). All arrays are float64 and finite."""

    clips: int
    mean: np.ndarray  # (dims,) over all frames
    deviation: np.ndarray  # (dims,)
    speakers: np.ndarray  # (dims,) deviation of the means of clips
    together: np.ndarray  # (some, some) correlations of some dimensions
    neighbours: float  # correlation of each frame with the next, over dimensions that change
    trend: np.ndarray  # (dims,) last third minus first third of a clip, over its standard error
    frames: float  # of a clip, the median
    frames_per_word: float  # of the target, the median


def profile_features(dataset: Dataset) -> FeatureProfile:
    """The look of a set's matrices. Raises RequestError where one cannot be read."""
    places = np.linspace(0, len(dataset) - 1, min(len(dataset), CLIPS)).astype(int)
    chosen = np.linspace(0, dataset.dims - 1, min(dataset.dims, WIDEST)).astype(int)
    count, sums, squares = 0, np.zeros(dataset.dims), np.zeros(dataset.dims)
    crossed = np.zeros((len(chosen), len(chosen)))
    means, trends, moved, lengths, rates = [], [], [], [], []
    for place in places:
        matrix = dataset.features(int(place)).astype(np.float64)
        count += len(matrix)
        sums += matrix.sum(0)
        squares += np.square(matrix).sum(0)
        crossed += matrix[:, chosen].T @ matrix[:, chosen]
        means.append(matrix.mean(0))
        third = max(1, len(matrix) // 3)
        trends.append(matrix[-third:].mean(0) - matrix[:third].mean(0))
        moved.append(_neighbours(matrix))
        lengths.append(len(matrix))
        rates.append(len(matrix) / max(1, len(dataset[int(place)].target.split())))
    mean = sums / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    spread = deviation[chosen]
    covariance = crossed / count - np.outer(mean[chosen], mean[chosen])
    still = np.outer(spread, spread) <= 1e-12
    together = np.divide(covariance, np.outer(spread, spread), out=np.zeros_like(covariance), where=~still)
    errors = np.std(trends, axis=0) / max(1, len(trends)) ** 0.5
    trend = np.divide(np.mean(trends, axis=0), errors, out=np.zeros(dataset.dims), where=errors > 1e-12)
    known = [each for each in moved if np.isfinite(each)]
    return FeatureProfile(
        len(places),
        mean,
        deviation,
        np.std(means, axis=0),
        together,
        float(np.mean(known)) if known else 1.0,
        trend,
        float(np.median(lengths)),
        float(np.median(rates)),
    )


def _neighbours(matrix: np.ndarray) -> float:
    """The correlation of frames with their successors, around each dimension's mean; NaN where nothing changes."""
    centred = matrix - matrix.mean(0)
    power = np.square(centred).sum()
    if len(matrix) < 3 or power <= 1e-9:
        return float("nan")
    return float((centred[1:] * centred[:-1]).sum() / power * len(matrix) / (len(matrix) - 1))
