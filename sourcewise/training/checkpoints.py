"""Checkpoints of a training: the last, the best, and snapshots of the last evaluations for an average."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import Tensor

from sourcewise.figures import figures
from sourcewise.model.weights.checkpoint import save_network
from sourcewise.training.learner import Learner
from sourcewise.training.run import Run
from sourcewise.training.setup import TrainingSetup
from sourcewise.training.state import load_state, save_state


class Checkpoints:
    """The checkpoints of a run: checkpoints/last, checkpoints/best, and snapshots beside the state."""

    def __init__(self, setup: TrainingSetup, run: Run, learner: Learner) -> None:
        self.setup, self.run, self.learner, self.ranks = setup, run, learner, learner.ranks

    def write(self, folder: Path) -> None:
        """Write the fp32 master weights as a checkpoint folder. Raises NotFinite if one is not finite."""
        self.learner.check()
        network, tokenizer, options = self.setup.network, self.setup.tokenizer, self.setup.recipe.generation
        with self.learner.optimizer.in_full():
            self.ranks.first(lambda: save_network(network, folder, tokenizer, options))

    def consider(self, metrics: dict[str, Any]) -> bool | None:
        """Save the weights as the best checkpoint if no evaluation was better: returns True then, else None.

        Without figures, that is, without a validation set, they are always saved.
        """
        at, standing = self.learner.at, self._standing(metrics) if metrics else None
        if standing is not None:
            self._wait(standing)
        if standing is None or at.best is None or standing < at.best:
            at.best = standing
            self.write(self.run.best)
            return True
        return None

    def _wait(self, standing: tuple[float, float]) -> None:
        """Count evaluations without a figure that is better by more than train.min_delta."""
        at, least = self.learner.at, self.setup.recipe.train.min_delta
        if at.patient is None or standing[0] < at.patient[0] - least or (not least and standing < at.patient):
            at.patient, at.waited = standing, 0
        else:
            at.waited += 1

    @property
    def patience_ended(self) -> bool:
        """Whether so many evaluations as train.patience have not been better."""
        patience = self.setup.recipe.train.patience
        return bool(patience) and self.learner.at.waited >= patience

    def _standing(self, metrics: dict[str, Any]) -> tuple[float, float]:
        """Sort key of an evaluation, lower is better; the loss decides between equals, since BLEU may be 0 for long."""
        name = self.setup.recipe.train.best
        value, loss = metrics[name], metrics["loss"]
        signed = None if value is None else -figures()[name].sign * value
        return math.inf if signed is None else signed, math.inf if loss is None else loss

    def snapshot(self) -> None:
        """Save the weights as a snapshot, of which the last K are averaged at the end."""
        if self.setup.recipe.train.average < 2:
            return
        at = self.learner.at
        path = self.run.state.with_name(f"weights-{at.step}.pt")
        weights = self.learner.optimizer.weights()
        at.snapshots = [*at.snapshots, path.name][-self.setup.recipe.train.average :]

        def write() -> None:
            save_state(weights, path)
            for old in path.parent.glob("weights-*.pt"):
                if old.name not in at.snapshots:
                    old.unlink()

        self.ranks.first(write)

    def average(self) -> tuple[dict[str, Tensor], int] | None:
        """The mean of the last snapshots (Vaswani et al. 2017) and their number; None for fewer than two."""
        loaded = [load_state(self.run.state.with_name(name)) for name in self.learner.at.snapshots]
        weights = [each for each in loaded if each is not None]
        if len(weights) < 2:
            return None
        return {name: sum(each[name] for each in weights) / len(weights) for name in weights[0]}, len(weights)
