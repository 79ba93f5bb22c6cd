"""The learning rate: its warm-up, its shapes, its ends."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sourcewise.config import TrainConfig
from sourcewise.training.plan import learning_rate


def rates(total: int, **options: object) -> list[float]:
    train = TrainConfig.model_validate({"learning_rate": 2.0, "warmup_steps": 4, **options})
    return [learning_rate(step, total, train) for step in range(total)]


@pytest.mark.parametrize("schedule", ["cosine", "inverse_sqrt", "constant"])
def test_the_warm_up_is_linear_and_ends_at_the_peak(schedule: str) -> None:
    assert rates(10, schedule=schedule)[:4] == [0.5, 1.0, 1.5, 2.0]


def test_the_cosine_falls_from_the_peak_to_the_final_rate() -> None:
    found = rates(1004, schedule="cosine", final_rate=0.1)
    assert found[4] == 2.0
    assert found[504] == pytest.approx(2.0 * (0.1 + 0.9 / 2))
    assert found[-1] == pytest.approx(0.2, rel=1e-3)


def test_the_inverse_square_root_halves_when_the_steps_fourfold() -> None:
    found = rates(400, schedule="inverse_sqrt")
    assert found[99] == pytest.approx(2.0 * math.sqrt(4 / 100))
    assert found[399] == pytest.approx(found[99] / 2)


def test_a_constant_rate_stays() -> None:
    assert set(rates(50, schedule="constant")[3:]) == {2.0}


@given(
    total=st.integers(1, 300),
    warmup=st.integers(0, 400),
    schedule=st.sampled_from(["cosine", "inverse_sqrt", "constant"]),
    final=st.floats(0, 1),
)
def test_rates_are_positive_never_above_the_peak_and_fall_once_warm(
    total: int, warmup: int, schedule: str, final: float
) -> None:
    found = rates(total, warmup_steps=warmup, schedule=schedule, final_rate=final)
    assert all(0 <= rate <= 2.0 + 1e-12 for rate in found)
    assert found[0] > 0
    peak = min(warmup, total)
    assert found[:peak] == sorted(found[:peak])
    falling = found[max(0, peak - 1) :]
    assert all(a >= b - 1e-12 for a, b in pairwise(falling))
