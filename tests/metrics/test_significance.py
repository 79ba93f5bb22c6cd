"""Bootstrap intervals: against theory, and what must hold for any sums."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sourcewise.metrics.significance import interval


def test_interval_of_a_mean_is_as_wide_as_the_central_limit_theorem_says():
    sums = np.random.default_rng(1).normal(3.0, 2.0, 2000)
    low, high = interval(sums, np.ones(2000), resamples=4000)
    error = sums.std() / np.sqrt(2000)
    assert (low, high) == pytest.approx((sums.mean() - 1.96 * error, sums.mean() + 1.96 * error), abs=0.1 * error)


def test_ninety_five_of_a_hundred_intervals_hold_the_truth():
    rng = np.random.default_rng(2)
    held = 0
    for trial in range(200):
        weights = rng.integers(1, 10, 80)
        sums = rng.normal(0.5 * weights, np.sqrt(weights))
        low, high = interval(sums, weights, resamples=400, seed=trial)
        held += low <= 0.5 <= high
    assert 0.90 <= held / 200 <= 0.99


def test_a_ratio_of_sums_not_a_mean_of_ratios():
    # Every example has ratio 1 or 0; the long one carries the weight.
    low, high = interval(np.array([90.0, 0.0]), np.array([90.0, 10.0]), resamples=2000)
    assert (low, high) == (0.0, 1.0)
    ratios = {interval(np.array([90.0, 0.0]), np.array([90.0, 10.0]), 1, seed)[0] for seed in range(20)}
    assert ratios == {0.0, 0.9, 1.0}


def test_seeded_and_independent_of_how_draws_are_chunked(monkeypatch):
    sums, weights = np.arange(50.0), np.arange(1, 51.0)
    first = interval(sums, weights, seed=7)
    assert first == interval(sums, weights, seed=7)
    assert first != interval(sums, weights, seed=8)
    monkeypatch.setattr("sourcewise.metrics.significance._CELLS", 100)
    low, high = interval(sums, weights, seed=7)
    assert low == pytest.approx(first[0], rel=0.1) and high == pytest.approx(first[1], rel=0.1)


def test_fast_enough_for_a_large_set():
    started = time.process_time()
    interval(np.ones(20_000), np.ones(20_000))
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("sums", "weights"), [([], []), ([1.0], [1.0, 2.0]), ([1.0], [0.0]), ([1.0, 1.0], [2.0, -1.0]), ([[1.0]], [[1.0]])]
)
def test_what_has_no_ratio_is_refused(sums, weights):
    with pytest.raises(ValueError):
        interval(np.array(sums), np.array(weights))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-100, 100), st.integers(0, 20)), min_size=1, max_size=20))
def test_within_the_smallest_and_largest_ratio(rows):
    sums, weights = np.array([s if w else 0.0 for s, w in rows]), np.array([w for _, w in rows])
    if not weights.sum():
        return
    low, high = interval(sums, weights, resamples=50)
    ratios = sums[weights > 0] / weights[weights > 0]
    assert ratios.min() - 1e-9 <= low <= high <= ratios.max() + 1e-9


def test_one_example_has_an_interval_without_width():
    assert interval(np.array([6.0]), np.array([3.0])) == (2.0, 2.0)
