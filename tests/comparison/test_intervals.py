"""Student's and Welch's intervals, against the tables of textbooks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sourcewise.comparison.intervals import mean_interval, student_t, welch_interval

TABLE = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 9: 2.2622, 30: 2.0423, 1000: 1.9623}


@pytest.mark.parametrize("freedom", TABLE)
def test_t_is_that_of_the_tables(freedom: int) -> None:
    assert student_t(freedom) == pytest.approx(TABLE[freedom], abs=1e-4)


def test_t_of_part_of_a_degree_lies_between_its_neighbours() -> None:
    assert student_t(3) < student_t(2.5) < student_t(2)
    assert student_t(4, 0.99) == pytest.approx(4.6041, abs=1e-4)
    with pytest.raises(ValueError, match="degrees of freedom"):
        student_t(0)


def test_one_value_shows_no_spread() -> None:
    assert mean_interval([3.0]) is None
    assert welch_interval([3.0], [1.0, 2.0]) is None


def test_a_mean_and_a_difference_as_by_hand() -> None:
    low, high = mean_interval([1.0, 2.0, 3.0]) or (math.nan, math.nan)
    assert (low + high) / 2 == pytest.approx(2) and (high - low) / 2 == pytest.approx(4.3027 / math.sqrt(3), abs=1e-4)
    low, high = welch_interval([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]) or (math.nan, math.nan)  # variances 1: freedom 4
    assert (low + high) / 2 == pytest.approx(-3) and (high - low) / 2 == pytest.approx(
        2.7764 * math.sqrt(2 / 3), abs=1e-4
    )
    assert welch_interval([1.0, 1.0], [2.0, 2.0]) == (-1.0, -1.0)


def test_the_interval_holds_the_mean_as_often_as_it_says() -> None:
    drawn = np.random.default_rng(0).normal(5, 2, (2000, 3))
    held = [low <= 5 <= high for low, high in filter(None, (mean_interval(list(row)) for row in drawn))]
    assert 0.94 < np.mean(held) < 0.96
