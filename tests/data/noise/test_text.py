"""Noise on source texts: the shares that were asked for, drawn for an example, never for a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sourcewise.config import TextNoiseConfig
from sourcewise.data.batches import Batch, Source, pad
from sourcewise.data.noise.text import TextNoise

UNKNOWN, PAD, END = 2, 0, 1
WORDS = st.lists(st.integers(3, 50), max_size=20)
SHARE = st.sampled_from([0.0, 0.1, 0.5, 0.99])


def noise(seed: int = 0, **options: float) -> TextNoise:
    return TextNoise(TextNoiseConfig(**options), UNKNOWN, PAD, seed)


def batch(rows: list[list[int]], indices: list[int]) -> Batch:
    tokens, lengths = pad(rows, PAD)
    return Batch(Source(tokens, lengths), torch.ones(len(rows), 1, dtype=torch.long), indices)


def texts(made: Batch) -> list[list[int]]:
    assert made.source.tokens is not None and made.source.token_lengths is not None
    return [row[:n] for row, n in zip(made.source.tokens.tolist(), made.source.token_lengths.tolist(), strict=True)]


def test_nothing_is_active_by_default() -> None:
    assert not noise().active and noise(drop=0.1).active and noise(mask=0.1).active and noise(swap=0.1).active


@given(WORDS, SHARE, SHARE, SHARE, st.integers(0, 9))
def test_the_end_stays_and_something_is_left(
    words: list[int], drop: float, mask: float, swap: float, seed: int
) -> None:
    changed = noise(drop=drop, mask=mask, swap=swap).changed(np.array([*words, END]), np.random.default_rng(seed))
    assert changed[-1] == END and len(changed) >= min(len(words), 1) + 1
    assert set(changed.tolist()) <= {*words, UNKNOWN, END}
    if not drop and not mask:
        assert sorted(changed) == sorted([*words, END])
    if not mask and not swap:
        rest = iter([*words, END])
        assert all(token in rest for token in changed.tolist())  # in their order


def test_shares_are_those_asked_for() -> None:
    ids = np.array([*range(3, 5003), END])
    rng = np.random.default_rng(0)
    assert len(noise(drop=0.2).changed(ids, rng)) == pytest.approx(4000, abs=120)
    assert (noise(mask=0.2).changed(ids, rng) == UNKNOWN).sum() == pytest.approx(1000, abs=120)
    moved = noise(swap=0.2).changed(ids, rng) != ids
    assert moved.sum() == pytest.approx(2 * 5000 * 0.2 / 1.2, abs=160)  # where a pair moved, the next draw is skipped


def test_an_example_is_changed_alike_whatever_its_neighbours_and_anew_each_epoch() -> None:
    rows = [[*range(3, 20), END], [*range(30, 34), END], [*range(5, 12), END]]
    made = noise(drop=0.3, mask=0.2, swap=0.3)
    whole = texts(made(batch(rows, [4, 8, 6]), 2))
    assert texts(made(batch([rows[1]], [8]), 2))[0] == whole[1]
    assert texts(made(batch(rows[::-1], [6, 8, 4]), 2)) == whole[::-1]
    assert texts(made(batch(rows, [4, 8, 6]), 3)) != whole
    assert texts(noise(1, drop=0.3, mask=0.2, swap=0.3)(batch(rows, [4, 8, 6]), 2)) != whole


def test_features_and_their_prompts_stay() -> None:
    made = batch([[3, 4, END]], [0])
    made.source.features, made.source.frames = torch.zeros(1, 2, 3), torch.tensor([2])
    assert noise(drop=0.9)(made, 0) is made
