"""A figure of texts, by how a recipe counts it: its value for a set, and what it is made of per example.

Scores are functions of sums over examples: of matching n-grams, of words, of errors. With what is counted of every
example, bootstrap resamples need not read the texts again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np

from sourcewise.figures import Figure, figures
from sourcewise.metrics.counting import SCORES, Counting, References, Scorer, scorer
from sourcewise.metrics.outputs import measured
from sourcewise.metrics.significance import resampled_sums

Key = TypeVar("Key")

GROUPS = 200  # in which figures are measured that are no function of sums


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts (examples, parts) of one figure, and the function from sums (…, parts) to the figure (…)."""

    of: np.ndarray
    figure: Callable[[np.ndarray], np.ndarray]


class Held(Protocol):
    """A figure that outputs of one set are held to."""

    def score(self, outputs: Sequence[str]) -> float:
        """The figure over all examples; NaN if a plug-in fails to measure it."""

    def counts(self, outputs: Sequence[str]) -> Counts | None:
        """What the figure is made of; None if a plug-in fails to measure it."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure and how it is counted: one of SCORES, or one of a plug-in."""

    key: str
    counting: Counting = field(default_factory=Counting)

    def of(self, references: References) -> Held:
        """The figure for the outputs of a set with these references."""
        if self.key in SCORES:
            return _Counted(scorer(self.key, references, self.counting))
        return _Foreign(figures()[self.key], [each[0] for each in references])

    @property
    def sign(self) -> int:
        """1 if higher is better, else -1."""
        return figures()[self.key].sign

    def best_first(self, references: References, choices: Sequence[Sequence[str]]) -> list[int]:
        """The numbers of several lists of outputs, the best first; equals keep their order, the unmeasured are last."""
        held = self.of(references)
        values = [self.sign * held.score(outputs) for outputs in choices]
        return sorted(range(len(choices)), key=lambda i: math.inf if math.isnan(values[i]) else -values[i])


@dataclass(frozen=True, slots=True)
class _Counted:
    scorer: Scorer

    def score(self, outputs: Sequence[str]) -> float:
        return self.scorer.score(outputs)

    def counts(self, outputs: Sequence[str]) -> Counts:
        return Counts(self.scorer.statistics(outputs), self.scorer.of_sums)


@dataclass(frozen=True, slots=True)
class _Foreign:
    """A plug-in's figure, which is no function of sums: it is measured in groups, and these are resampled."""

    figure: Figure
    references: Sequence[str]

    def score(self, outputs: Sequence[str]) -> float:
        value = measured(self.figure, outputs, self.references)
        return math.nan if value is None else value

    def counts(self, outputs: Sequence[str]) -> Counts | None:
        order = np.random.default_rng(0).permutation(len(outputs))
        found = []
        for group in np.array_split(order, min(GROUPS, len(outputs))):
            value = measured(self.figure, [outputs[i] for i in group], [self.references[i] for i in group])
            if value is None or math.isnan(value):
                return None
            found.append([value * len(group), len(group)])
        return Counts(np.array(found), ratio)


def resampled(counted: Mapping[Key, Counts], resamples: int = 1000) -> dict[Key, np.ndarray]:
    """Key → (resamples,) values over examples drawn with replacement, the same draws for all of the same size."""
    found: dict[Key, np.ndarray] = {}
    for size in {len(each.of) for each in counted.values()}:
        these = {key: each for key, each in counted.items() if len(each.of) == size}
        cuts = np.cumsum([each.of.shape[1] for each in these.values()])[:-1]
        sums = resampled_sums(np.concatenate([each.of for each in these.values()], axis=1), resamples)
        for (key, each), part in zip(these.items(), np.split(sums, cuts, axis=1), strict=True):
            found[key] = each.figure(part)
    return found


def ratio(sums: np.ndarray) -> np.ndarray:
    """The first sum over the second."""
    return np.asarray(sums[..., 0] / np.maximum(sums[..., 1], 1e-300))
