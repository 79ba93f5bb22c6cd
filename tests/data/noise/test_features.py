"""Changes to training features: what they touch, how much, and that they belong to the example."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sourcewise.config import AugmentConfig
from sourcewise.data.noise.features import Augmenter

DIMS = 6
MEAN, DEVIATION = np.arange(DIMS, dtype=np.float32), np.full(DIMS, 2.0, dtype=np.float32)


def augmenter(**options: float) -> Augmenter:
    return Augmenter(AugmentConfig.model_validate(options), MEAN, DEVIATION)


def matrix(frames: int) -> np.ndarray:
    return np.random.default_rng(7).normal(50, 1, (frames, DIMS)).astype(np.float32)


def test_nothing_asked_for_is_nothing_done() -> None:
    assert not augmenter().active
    assert augmenter(speed=0.1).active and augmenter(noise=0.1).active
    assert augmenter(time_masks=1).active and augmenter(frequency_masks=1).active


@given(
    frames=st.integers(1, 40),
    seed=st.integers(0, 1000),
    time_masks=st.integers(0, 3),
    frequency_masks=st.integers(0, 3),
    speed=st.floats(0, 0.9),
    noise=st.floats(0, 1),
)
def test_any_matrix_comes_back_finite_in_its_width_and_precision_and_the_given_one_is_untouched(
    frames: int, seed: int, time_masks: int, frequency_masks: int, speed: float, noise: float
) -> None:
    change = augmenter(time_masks=time_masks, frequency_masks=frequency_masks, speed=speed, noise=noise)
    given_ = matrix(frames)
    before = given_.copy()
    first, second = (change(given_, np.random.default_rng([seed, 3])) for _ in range(2))
    np.testing.assert_array_equal(given_, before)
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.float32 and first.shape[1] == DIMS and np.isfinite(first).all()
    assert max(1, frames * (1 - speed) - 1) <= len(first) <= max(1, frames * (1 + speed) + 1)


@given(seed=st.integers(0, 1000), frames=st.integers(1, 60))
def test_masks_are_stretches_at_the_mean_no_wider_than_asked(seed: int, frames: int) -> None:
    out = augmenter(time_masks=1, time_width=5)(matrix(frames), np.random.default_rng(seed))
    masked = np.flatnonzero((out == MEAN).all(1))
    assert len(masked) <= min(5, max(1, frames // 4))
    assert len(masked) == 0 or masked[-1] - masked[0] == len(masked) - 1
    out = augmenter(frequency_masks=1, frequency_width=20)(matrix(frames), np.random.default_rng(seed))
    masked = np.flatnonzero((out == MEAN).all(0))
    assert len(masked) < DIMS  # never everything
    assert len(masked) == 0 or masked[-1] - masked[0] == len(masked) - 1


def test_speed_resamples_a_line_into_the_same_line() -> None:
    line = np.linspace(0, 1, 50, dtype=np.float32)[:, None].repeat(DIMS, 1)
    lengths = set()
    for seed in range(20):
        out = augmenter(speed=0.3)(line, np.random.default_rng(seed))
        lengths.add(len(out))
        np.testing.assert_allclose(out, np.linspace(0, 1, len(out))[:, None].repeat(DIMS, 1), atol=1e-5)
    assert len(lengths) > 5 and min(lengths) >= 35 and max(lengths) <= 65


def test_noise_is_in_standard_deviations_of_each_dimension() -> None:
    still = np.zeros((20_000, DIMS), dtype=np.float32)
    out = augmenter(noise=0.5)(still, np.random.default_rng(0))
    assert out.std(0) == pytest.approx(0.5 * DEVIATION, rel=0.05)
    assert out.mean(0) == pytest.approx(np.zeros(DIMS), abs=0.05)
