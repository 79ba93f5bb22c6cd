"""The course of a training, as the lines of metrics.jsonl tell it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sourcewise.config import Recipe

Line = Mapping[str, Any]
LAST, SOME, NATS = 1 / 3, 0.1, 0.05  # of a training, of the loss before it, and the fall that counts
FEWEST = 6  # lines from which on a fall can be told


@dataclass(frozen=True, slots=True)
class Course:
    """What was logged so far; what older or foreign lines lack is left out of the judgement, never guessed."""

    train: tuple[Line, ...]
    evaluations: tuple[Line, ...]
    stopped: Line | None = None  # of a training that ended by values that are not finite
    start: Line | None = None
    recipe: Recipe | None = None
    pretrained: bool = False  # whether it began from such weights, where no recipe says so
    not_finite: Line | None = None  # a loss of a training that went on, its weights unharmed
    other_loss: str = ""  # why the loss of its lines is no cross-entropy, where it is none

    @classmethod
    def read(cls, lines: Sequence[Line], recipe: Recipe | None = None) -> Course:
        """From the lines of metrics.jsonl, in the order in which they were written."""

        def of(kind: str) -> tuple[Line, ...]:
            return tuple(line for line in lines if line.get("kind") == kind)

        last = {kind: (of(kind) or (None,))[-1] for kind in ("stopped", "start", "not_finite")}
        train = tuple(line for line in of("train") if line.get("loss") is not None)
        return cls(train, of("evaluation"), last["stopped"], last["start"], recipe, not_finite=last["not_finite"])

    @property
    def step(self) -> int:
        """The last step that was logged."""
        return max((int(line["step"]) for line in (*self.train, *self.evaluations)), default=0)

    @property
    def total(self) -> int:
        """Steps that the training was to have; 0 where nobody noted them."""
        planned = (self.start or {}).get("steps") or (self.recipe.train.steps if self.recipe else 0)
        return int(planned or 0)

    @property
    def finished(self) -> bool:
        """Whether it went to its end."""
        return self.stopped is None and 0 < self.total <= self.step

    @property
    def going_on(self) -> bool:
        """Whether it is under way; or ended while its loss still fell, where no earlier evaluation tells more."""
        if self.stopped is not None or 0 < self.step < self.total:
            return self.stopped is None
        earlier = any(int(line["step"]) <= (1 - LAST) * self.step for line in self.evaluations)
        if earlier or len(self.train) < FEWEST:
            return False
        third = len(self.train) // 3
        before, last = middle(self.losses[-2 * third : -third]), middle(self.losses[-third:])
        return before - last >= max(SOME * before, NATS)

    @property
    def fresh(self) -> bool:
        """Whether it began from random weights, as far as is known."""
        return not self.pretrained and (self.recipe is None or not self.recipe.model.weights)

    @property
    def losses(self) -> np.ndarray:
        """(lines,) training loss in nats a target token, averaged over the steps of a line."""
        return np.array([float(line["loss"]) for line in self.train])

    @property
    def target_entropy(self) -> float | None:
        """Nats a target token for whoever knows the tokens' frequencies alone."""
        noted = (self.start or {}).get("target_entropy")
        return float(noted) if noted else None

    def values(self, key: str, part: str | None = None) -> np.ndarray:
        """(lines,) a figure of the training lines where it is finite; with `part`, of that part of the network."""
        found = [line.get(key) for line in self.train]
        if part is not None:
            found = [each.get(part) if isinstance(each, Mapping) else None for each in found]
        return np.array([float(each) for each in found if each is not None and math.isfinite(each)])

    def parts(self, key: str) -> list[str]:
        """The parts of the network of which the training lines have this figure."""
        return list(dict.fromkeys(part for line in self.train for part in line.get(key) or ()))

    def way(self, part: str) -> float:
        """How far a part's weights would be, in their own size, had all updates gone in one direction."""
        found, before = 0.0, 0
        for line in self.train:
            ratio = (line.get("update_ratios") or {}).get(part)
            found += (int(line["step"]) - before) * float(ratio or 0)
            before = int(line["step"])
        return found


def middle(values: Sequence[float] | np.ndarray) -> float:
    """The median."""
    return float(np.median(np.asarray(values, dtype=np.float64)))


def stretches(values: np.ndarray) -> np.ndarray:
    """Medians of consecutive tenths of a series, of at least three values each."""
    count = max(1, min(10, len(values) // 3))
    return np.array([middle(part) for part in np.array_split(values, count)])
