"""Recordings that are drawn, not recorded: number words as patterns over bands, in the layout of Whisper's features."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from others.tasks import ENGLISH
from others.trainers import Row

BANDS, FRAMES, WORD = 16, 64, 10  # a word is so many frames


def sounds(seed: int = 0) -> Any:
    """What each number word sounds like: (10, BANDS, WORD)."""
    return np.random.default_rng([11, seed]).normal(size=(10, BANDS, WORD)).astype(np.float32)


def recordings(count: int, seed: int, tokenizer: Any, low: int = 2, high: int = 4) -> list[Row]:
    """Rows of `input_features` (BANDS, FRAMES), silent at the end, and labels."""
    draw, noise, spoken = random.Random(seed), np.random.default_rng([12, seed]), sounds()
    rows = []
    for _ in range(count):
        digits = [draw.randrange(10) for _ in range(draw.randint(low, high))]
        features = 0.2 * noise.normal(size=(BANDS, FRAMES)).astype(np.float32)
        for place, digit in enumerate(digits):
            features[:, place * WORD : (place + 1) * WORD] += spoken[digit]
        text = " ".join(ENGLISH[digit] for digit in digits)
        rows.append({"input_features": features, "labels": tokenizer(text)["input_ids"]})
    return rows


class SpeechCollator:
    """Batches as the Whisper notebooks make them."""

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Features stacked, labels padded with -100."""
        width = max(len(row["labels"]) for row in rows)
        labels = [row["labels"] + [-100] * (width - len(row["labels"])) for row in rows]
        features = np.stack([row["input_features"] for row in rows])
        return {"input_features": torch.from_numpy(features), "labels": torch.tensor(labels)}
