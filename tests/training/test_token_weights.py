"""Weights of rare tokens: the formulas, their scale, and a training with each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sourcewise
from sourcewise.config import TrainConfig
from sourcewise.training.rarity import token_weights
from tests.training.recipes import pairs_file, recipe

VOCABULARY = 9


class Examples:
    """What is asked of an Encoded."""

    def __init__(self, targets: list[list[int]], weights: list[float] | None = None) -> None:
        self.targets, self.target_lengths = targets, np.array([len(ids) for ids in targets])
        self.weights = None if weights is None else np.array(weights)

    def __len__(self) -> int:
        return len(self.targets)


def weights_of(kind: str, targets: list[list[int]], mixture: list[float] | None = None, beta: float = 0.9) -> Any:
    train = TrainConfig.model_validate({"token_weights": kind, "effective_beta": beta})
    return token_weights(Examples(targets, mixture), VOCABULARY, train)  # type: ignore[arg-type]


def test_all_count_alike_unless_asked_for() -> None:
    assert weights_of("none", [[1, 2]]) is None


def test_inverse_frequency_gives_every_token_of_the_set_the_same_share() -> None:
    found = weights_of("inverse_frequency", [[3, 3, 3, 1], [3, 4, 1]])
    assert found.dtype == torch.float32 and found.shape == (VOCABULARY,)
    assert (found * torch.tensor([0, 2, 0, 4, 1, 0, 0, 0, 0])).tolist() == pytest.approx(
        [0, 7 / 3, 0, 7 / 3, 7 / 3, 0, 0, 0, 0]
    )
    assert found[7] == found[4]  # never seen: as one seen once


def test_the_effective_number_is_that_of_the_paper() -> None:
    found = weights_of("effective_number", [[3, 3, 3, 1], [3, 4, 1]], beta=0.9)
    effective = {n: (1 - 0.9**n) / (1 - 0.9) for n in (1, 2, 4)}
    assert float(found[4] / found[3]) == pytest.approx(effective[4] / effective[1], rel=1e-5)
    assert float(found[4] / found[1]) == pytest.approx(effective[2] / effective[1], rel=1e-5)


def test_a_mixture_counts_as_it_is_drawn() -> None:
    """Examples of weight 3 beside as many of weight 1: as if they were there three times."""
    once, thrice = [[3, 1]] * 8, [[4, 4, 1]] * 8
    mixed = weights_of("inverse_frequency", once + thrice, [1.0] * 8 + [3.0] * 8)
    drawn = weights_of("inverse_frequency", once + 3 * thrice)
    assert mixed[[1, 3, 4]].tolist() == pytest.approx(drawn[[1, 3, 4]].tolist())


@given(
    targets=st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=9), min_size=1, max_size=9),
    kind=st.sampled_from(["inverse_frequency", "effective_number"]),
    beta=st.sampled_from([1e-6, 0.5, 0.999, 1 - 1e-9]),
)
def test_tokens_of_an_epoch_weigh_one_on_average_and_the_rarer_never_less(
    targets: list[list[int]], kind: str, beta: float
) -> None:
    found = weights_of(kind, targets, beta=beta)
    seen = [id for ids in targets for id in ids]
    assert float(found[seen].mean()) == pytest.approx(1, rel=1e-4)
    counts = np.bincount(seen, minlength=VOCABULARY)
    order = np.argsort(counts, kind="stable")
    assert all(a >= b * (1 - 1e-6) for a, b in zip(found[order], found[order[1:]], strict=False))


@pytest.mark.parametrize(
    "changes",
    [
        {"train__token_weights": "inverse_frequency"},
        {"train__token_weights": "effective_number", "train__label_smoothing": 0.1},
        {"train__focal": 2.0},
    ],
    ids=str,
)
def test_ten_steps_with_each_on_a_mixture(tmp_path: Path, changes: dict[str, Any]) -> None:
    sets = [{"pairs": str(pairs_file(tmp_path, f"{i}.tsv", 300, i)), "weight": 3.0 - i} for i in (0, 1)]
    options = {"data": {"train": sets, "vocabulary": 64}, "train__steps": 10, "train__log_every": 1}
    run = sourcewise.train(recipe(tmp_path, **options, **changes))
    plain = sourcewise.train(recipe(tmp_path, name="plain", **options))
    losses = [[line["loss"] for line in r.metrics() if line["kind"] == "train"] for r in (run, plain)]
    assert losses[0][-1] < losses[0][0]
    assert losses[0] != losses[1]
    if "train__label_smoothing" not in changes:
        assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-4)  # what is told is the plain cross-entropy
