"""Augmentation of training features, drawn anew each epoch (SpecAugment: Park et al. 2019; speed: Ko et al. 2015)."""

from __future__ import annotations

import numpy as np

from sourcewise.config import AugmentConfig


class Augmenter:
    """Augments one (frames, dims) matrix; the draws depend on (seed, epoch, example), not on the batch."""

    def __init__(self, config: AugmentConfig, mean: np.ndarray, deviation: np.ndarray) -> None:
        self.config, self.mean, self.deviation = config, mean, deviation

    @property
    def active(self) -> bool:
        """Whether any augmentation is on."""
        c = self.config
        return bool(c.time_masks or c.frequency_masks or c.speed or c.noise)

    def __call__(self, matrix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """An augmented copy (frames, dims), possibly with another number of frames."""
        c = self.config
        out = _resample(matrix, 1 + rng.uniform(-c.speed, c.speed)) if c.speed else matrix.copy()
        if c.noise:
            out += rng.normal(0, c.noise, out.shape).astype(out.dtype) * self.deviation
        for _ in range(c.time_masks):
            width = int(rng.integers(0, min(c.time_width, max(1, len(out) // 4)) + 1))
            start = int(rng.integers(0, max(1, len(out) - width)))
            out[start : start + width] = self.mean
        for _ in range(c.frequency_masks):
            width = int(rng.integers(0, min(c.frequency_width, out.shape[1] - 1) + 1))
            start = int(rng.integers(0, out.shape[1] - width))
            out[:, start : start + width] = self.mean[start : start + width]
        return out


def _resample(matrix: np.ndarray, factor: float) -> np.ndarray:
    """Linear interpolation in time to `factor` times as many frames."""
    frames = max(1, round(len(matrix) * factor))
    places = np.linspace(0, len(matrix) - 1, frames)
    low = np.floor(places).astype(np.int64)
    high = np.minimum(low + 1, len(matrix) - 1)
    share = (places - low)[:, None].astype(matrix.dtype)
    return matrix[low] * (1 - share) + matrix[high] * share
