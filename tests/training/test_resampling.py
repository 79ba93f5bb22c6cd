"""Rare target tokens drawn more often: the factors of Gupta et al., and what an epoch then shows."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import sourcewise
from sourcewise.errors import RequestError
from sourcewise.training.rarity import repeat_factors, resample
from tests.training.recipes import recipe
from tests.training.test_token_weights import Examples


def test_the_rarest_token_of_a_target_decides_by_the_share_of_examples_that_have_it() -> None:
    targets = [[3, 3, 1]] * 15 + [[3, 4, 1]] * 4 + [[5, 1]]
    found = repeat_factors(Examples(targets), 0.4)  # type: ignore[arg-type]
    assert found.tolist() == pytest.approx([1.0] * 15 + [math.sqrt(0.4 / 0.2)] * 4 + [math.sqrt(0.4 / 0.05)])
    assert repeat_factors(Examples(targets), 0.01).tolist() == [1.0] * 20  # type: ignore[arg-type]


def test_a_mixtures_shares_stay() -> None:
    examples = Examples([[3, 1], [3, 1], [4, 1], [3, 1]], [0.1, 0.1, 0.4, 0.4])
    examples.parts = []  # type: ignore[attr-defined]
    resample(examples, 0.5)  # type: ignore[arg-type]
    assert examples.weights is not None
    assert examples.weights.tolist() == pytest.approx([0.1, 0.1, 0.4 * math.sqrt(2), 0.4])
    before = examples.weights
    resample(examples, 0.0)  # type: ignore[arg-type]
    assert examples.weights is before


def test_a_training_shows_the_rare_more_often(tmp_path: Path) -> None:
    from sourcewise.api import prepare
    from sourcewise.training.run import Run

    path = tmp_path / "uneven.tsv"
    rows = ["ba\tone\n"] * 380 + ["no\tsix\n"] * 20
    path.write_text("source\ttarget\n" + "".join(rows))
    data = {"train": {"pairs": str(path)}, "vocabulary": 32}
    training = prepare(recipe(tmp_path, data=data, train__resample_below=0.8), Run(tmp_path / "r"))
    drawn = np.concatenate(training.learner.plan.batches(0))
    assert len(drawn) == 400
    assert (drawn >= 380).sum() == pytest.approx(400 * 4 / (4 + 19 * 1), rel=0.25)  # √(0.8 / 0.05) = 4


def test_plain_text_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "plain.txt"
    text.write_text("one two three four five six seven\n" * 40)
    data = {"train": {"text": str(text)}, "vocabulary": 160}
    with pytest.raises(RequestError, match=r"train\.resample_below: the targets of plain text"):
        sourcewise.train(recipe(tmp_path, data=data, train__resample_below=0.5))
