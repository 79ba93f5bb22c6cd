"""The learning rate as a function of the step."""

from __future__ import annotations

import math

from sourcewise.config import TrainConfig


def learning_rate(step: int, total: int, train: TrainConfig) -> float:
    """Learning rate of step `step` (from 0) of `total`: linear warm-up, then cosine, inverse root, or constant."""
    warmup = min(train.warmup_steps, total)
    if step < warmup:
        return train.learning_rate * (step + 1) / warmup
    if train.schedule == "constant":
        return train.learning_rate
    if train.schedule == "inverse_sqrt":
        return train.learning_rate * math.sqrt(max(warmup, 1) / (step + 1))
    done = (step - warmup) / max(1, total - warmup)
    floor = train.final_rate
    return train.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))
