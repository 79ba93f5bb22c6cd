"""The callback in trainings of all kinds: none is ended, changed or cut short by it, and what it cannot see is said."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("accelerate", reason="transformers' Trainer needs it")
pytest.importorskip("transformers")

from sourcewise.integrations.transformers import SourcewiseCallback  # noqa: E402
from tests.integrations.odd import STEPS, TRAININGS, made, masked, prompted, second  # noqa: E402
from tests.integrations.trainings import bart, rows, t5  # noqa: E402


def trained(folder: Path, name: str, callback: Any) -> tuple[dict[str, Any], Any]:
    """All that a training leaves behind, and the callback that was in it, if any."""
    torch.manual_seed(1), np.random.seed(1), random.seed(1)  # noqa: NPY002
    built, counted = TRAININGS[name][0](folder)
    watching = callback(built) if callback else None
    if watching is not None:
        built.add_callback(watching)
    built.train()
    history = [line for line in built.state.log_history if not any(key.startswith("sourcewise") for key in line)]
    losses = [{key: line[key] for key in ("loss", "grad_norm", "eval_loss", "step") if key in line} for line in history]
    left = {
        "losses": losses,
        "step": built.state.global_step,
        "counted": counted(),
        "drawn": (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()),  # noqa: NPY002
        "weights": [p.detach().clone() for p in built.model.parameters()],
        "modes": [module.training for module in built.model.modules()],
        "hooks": [len(module._forward_pre_hooks) + len(module._forward_hooks) for module in built.model.modules()],
        "learning": [p.requires_grad for p in built.model.parameters()],
        "settings": built.model.generation_config.to_dict(),
        "config": str(built.model.config.to_dict()),
    }
    return left, watching


def same(left: dict[str, Any], right: dict[str, Any]) -> None:
    for name in left:
        if name == "weights":
            assert all(torch.equal(*pair) for pair in zip(left[name], right[name], strict=True))
        else:
            assert left[name] == right[name], name


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_is_the_same_with_the_callback(name: str, tmp_path: Path) -> None:
    alone, _ = trained(tmp_path, name, None)
    watched, callback = trained(tmp_path, name, SourcewiseCallback)
    same(alone, watched)
    assert watched["step"] == STEPS and watched["losses"]
    missing = callback.diagnosis.not_checked
    words = TRAININGS[name][1]
    assert any(words in line for line in missing)
    if not words:  # then all of it could be looked at
        assert not callback._told.problems
        assert "wiring" in callback.pieces and "data" in callback.pieces


@pytest.mark.parametrize("name", ["one-pass data", "lists", "a model with a memory", "compute_loss_func", "compiled"])
def test_without_the_trainer_too(name: str, tmp_path: Path) -> None:
    alone, _ = trained(tmp_path, name, None)
    watched, _ = trained(tmp_path, name, lambda built: SourcewiseCallback())
    same(alone, watched)
