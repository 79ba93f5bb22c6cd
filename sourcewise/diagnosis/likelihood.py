"""How likely a set's targets are: with their own sources, with sources turned around, and to somebody who guesses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Change:
    """One change that is made to all sources, in words, and the nats per token of each target then, (examples,)."""

    what: str
    nats: np.ndarray


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Nats of the targets of some examples, (examples,), and the number of their tokens."""

    own: np.ndarray
    tokens: np.ndarray
    turned: np.ndarray | None  # with each source from its end to its beginning; None where that changes none
    vocabulary: int  # tokens among which each is chosen
    trained: bool  # the weights are those of a training, not what a network begins with
    changes: Sequence[Change] = ()  # those that help, of what was tried

    about = "how likely the targets are"
    learned = False  # what is found wrong here no training cures

    @property
    def loss(self) -> float:
        """Nats per target token."""
        return float(self.own.sum() / self.tokens.sum())

    @property
    def each(self) -> np.ndarray:
        """Nats per token of each target, (examples,)."""
        return self.own / np.maximum(self.tokens, 1)

    @property
    def guessing(self) -> float:
        """Nats per token of somebody to whom all tokens are alike."""
        return math.log(self.vocabulary)
