"""Takes steps of trainings on a device that is not there, in a process of its own, and prints what waited for it.

    python -m tests.training.on_absent '[{"model__family": "bart"}, …]'

A case has the changes of a tiny recipe, and `features` for sources that are features, or `transformers` for a model of
such a type. Printed is a list of JSON, one entry a case: the waits, as file:line and what, and `failed`, if it did.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import torch
from on_gpu.absent import READS, OnAbsent, register

import sourcewise.training.learner
import sourcewise.training.setup
from sourcewise.config import Recipe
from sourcewise.model.place import place
from sourcewise.training.loop import Training
from sourcewise.training.run import Run
from sourcewise.training.setup import TrainingSetup, set_up
from sourcewise.training.step import DeviceEngine
from tests.training.recipes import feature_recipe, recipe

STEPS = 3
LIMITS: dict[str, Any] = {"data__max_source": 40, "data__max_target": 40, "generation": {"max_new_tokens": 12}}


def recipe_of(case: dict[str, Any], folder: Path) -> Recipe:
    """The recipe of a case."""
    changes = {"train__log_every": 1000, "train__steps": 100, "train__device": "cpu", **case}
    features, kind = changes.pop("features", False), changes.pop("transformers", None)
    if kind:
        from tests.training.test_huggingface import folder_of

        changes |= LIMITS | {"model": {"weights": str(folder_of(kind, folder) / "model")}}
    return (feature_recipe if features else recipe)(folder, **changes)


def on_the_host(made: Recipe) -> TrainingSetup:
    """All of a training, with its network as it was made, not yet placed anywhere."""
    usual = sourcewise.training.setup.place
    sourcewise.training.setup.place = lambda network, device: network
    try:
        return set_up(made)
    finally:
        sourcewise.training.setup.place = usual


def waits(case: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """What STEPS steps without a line of the log waited for."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "run").mkdir()
        setup, mode, taken = on_the_host(recipe_of(case, folder)), OnAbsent(device), 0
        with mode:
            sourcewise.training.learner.digest = lambda weights: ""  # read once, before the first step
            place(setup.network, device)
            learner = Training(setup, Run(folder / "run")).learner
            assert isinstance(learner.engine, DeviceEngine) and learner.ahead is not None
            mode.waits.clear()
            try:
                for batches in learner.plan.steps(learner.at):
                    learner.learn(batches)
                    taken += 1
                    if taken == STEPS:
                        break
            except READS:
                pass  # it is among the waits
        return {"waits": mode.waits, "steps": taken, "unread": len(learner.unread)}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    there = register()
    print(json.dumps([waits(case, there) for case in json.loads(sys.argv[1])]))
