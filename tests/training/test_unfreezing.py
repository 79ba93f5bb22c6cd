"""Parts that learn later: untouched until their epoch, then at their own rate."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from sourcewise.api import prepare
from sourcewise.config import UnfreezeConfig
from sourcewise.errors import RequestError
from sourcewise.training.freezing import Unfreezing
from sourcewise.training.learner import Learner
from sourcewise.training.run import Run
from tests.training.recipes import feature_recipe, recipe

LEARNING = ["embedding", "encoder", "bridge", "other"]


def test_a_part_waits_for_its_epoch_and_learns_at_its_rate() -> None:
    made = Unfreezing(LEARNING, UnfreezeConfig(encoder=2, bridge=0.5, rate=0.1))
    assert Unfreezing(LEARNING, UnfreezeConfig(rate=0.1)).factors(0.0) is None
    assert made.factors(0.0) == [1, 0, 0, 1]
    assert made.factors(0.5) == [1, 0, 0.1, 1]
    assert made.factors(2.0) == [1, 0.1, 0.1, 1]


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"train\.unfreeze\.decoder: is frozen for good"):
        Unfreezing(LEARNING, UnfreezeConfig(decoder=1))
    with pytest.raises(RequestError, match="nothing would learn at first"):
        Unfreezing(LEARNING[:2], UnfreezeConfig(embedding=1, encoder=1))
    with pytest.raises(RequestError, match=r"train\.unfreeze\.bridge: is frozen for good"):
        prepare(recipe(tmp_path, train__unfreeze={"bridge": 1}), Run(tmp_path / "r"))


def learnt(learner: Learner, steps: int) -> dict[str, bool]:
    """Whether the weights of each part moved."""
    before = {n: m.detach().clone() for n, m in learner.optimizer.weights().items()}
    for batches in itertools.islice(learner.plan.steps(learner.at), steps):
        learner.learn(batches)
    return {n: not torch.equal(m, before[n]) for n, m in learner.optimizer.weights().items()}


def test_weights_stay_to_the_bit_until_then(tmp_path: Path) -> None:
    options = {"train__unfreeze": {"encoder": 0.3, "rate": 0.5}, "train__warmup_steps": 0}
    learner = prepare(feature_recipe(tmp_path, **options), Run(tmp_path / "r")).learner
    assert len(learner.plan.batches(0)) > 6
    moved = learnt(learner, 1)
    assert moved["network.bridge.last.weight"]
    assert not any(there for name, there in moved.items() if name.startswith("network.body.encoder"))
    learner.at.position = learner.at.epoch_batches // 2
    moved = learnt(learner, 2)
    assert any(there for name, there in moved.items() if name.startswith("network.body.encoder"))
    optimizer = learner.optimizer
    rates = {n: g["lr"] for n, g in zip(optimizer.names, optimizer.adamw.param_groups, strict=True)}
    assert rates["network.body.encoder.0.attention.qkv.weight"] == pytest.approx(
        0.5 * rates["network.bridge.last.weight"]
    )
