"""The weights that a training keeps: the last, the best, and those of the last evaluations, to be averaged."""

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
    """Folders of weights in a run: checkpoints/last and checkpoints/best, and snapshots beside its state."""

    def __init__(self, setup: TrainingSetup, run: Run, learner: Learner) -> None:
        self.setup, self.run, self.learner = setup, run, learner

    def write(self, folder: Path) -> None:
        """Write the fp32 masters as a checkpoint folder. Raises NotFinite where one is not."""
        self.learner.check()
        with self.learner.optimizer.in_full():
            save_network(self.setup.network, folder, self.setup.tokenizer, self.setup.recipe.generation)

    def consider(self, metrics: dict[str, Any]) -> bool | None:
        """Make these weights the best checkpoint if no evaluation did better: True then, else None.

        Without figures, as there is no validation set, they are.
        """
        at, standing = self.learner.at, self._standing(metrics) if metrics else None
        if standing is None or at.best is None or standing < at.best:
            at.best = standing
            self.write(self.run.best)
            return True
        return None

    def _standing(self, metrics: dict[str, Any]) -> tuple[float, float]:
        """Lower is better; the loss decides between equals: BLEU is 0 as long as no four words are right."""
        name = self.setup.recipe.train.best
        value, loss = metrics[name], metrics["loss"]
        signed = None if value is None else -figures()[name].sign * value
        return math.inf if signed is None else signed, math.inf if loss is None else loss

    def snapshot(self) -> None:
        """Keep the weights of the last K evaluations for the average at the end."""
        if self.setup.recipe.train.average < 2:
            return
        at = self.learner.at
        path = self.run.state.with_name(f"weights-{at.step}.pt")
        save_state(self.learner.optimizer.weights(), path)
        at.snapshots = [*at.snapshots, path.name][-self.setup.recipe.train.average :]
        for old in path.parent.glob("weights-*.pt"):
            if old.name not in at.snapshots:
                old.unlink()

    def average(self) -> tuple[dict[str, Tensor], int] | None:
        """The mean of the last snapshots and of how many it is (Vaswani et al. 2017); None where there are no two."""
        loaded = [load_state(self.run.state.with_name(name)) for name in self.learner.at.snapshots]
        weights = [each for each in loaded if each is not None]
        if len(weights) < 2:
            return None
        return {name: sum(each[name] for each in weights) / len(weights) for name in weights[0]}, len(weights)
