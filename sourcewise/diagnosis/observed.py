"""What a training of somebody's own modules showed of its wiring, where no network of the protocol is there to ask."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from sourcewise.diagnosis.measures.first_step import FirstStep
from sourcewise.diagnosis.measures.objective import Form
from sourcewise.diagnosis.measures.signals import Fading
from sourcewise.diagnosis.measures.wiring import Paths

Given = Form | Literal[""]


@dataclass(frozen=True, slots=True)
class Zeros:
    """Matrices that were all zeros before the first step, by name, and what became of them."""

    names: tuple[str, ...]
    stuck: tuple[str, ...]  # of these, still zeros after `steps`, although they learn
    tables: int  # of these, embeddings of tokens
    starved: float  # share of the other matrices that had no gradient at the first step
    steps: int


@dataclass(frozen=True, slots=True)
class State:
    """An output of the encoder that nothing read, and what the decoder began with in its place."""

    name: str
    shape: tuple[int, ...]
    begun: str  # in words
    read: bool  # whether the loss depends on the encoder all the same


@dataclass(frozen=True, slots=True)
class Gradients:
    """What became of gradients between backward() and the optimizers' steps.

    `left` is what earlier steps had left in the way, over what came, of the optimizer where that is most; `erased` that
    gradients came and an optimizer found none; `untaken` how many steps went by without any step of an optimizer;
    `strangers` how many of the `held` tensors of the optimizers no module has.
    """

    left: float = 0.0
    erased: bool = False
    untaken: int = 0
    strangers: int = 0
    held: int = 0


@dataclass(frozen=True, slots=True)
class Observed:
    """What steps of a training showed: the last that was looked at, and what the loss takes the outputs for.

    `given` is what the loss is given, "" where that is not known; `spread` the standard deviation of the
    log-probabilities over the vocabulary; `source` how far the outputs move with other sources, over the largest, None
    where that was not tried.
    """

    step: FirstStep | None = None
    given: Given = ""
    loss: float = math.nan  # as the training has it
    nats: float = math.nan  # of a label that counts
    spread: float = math.nan
    source: float | None = None
    zeros: Zeros | None = None
    state: State | None = None
    detached: str = ""  # what of the encoder is read without its gradient, in words
    gradients: Gradients = field(default_factory=Gradients)
    fading: Fading | None = None
    early: bool = False  # whether it is the first step, where a branch that starts at zero starves what is before it
    unheld: bool = False  # whether the optimizers are not known

    @property
    def paths(self) -> Paths:
        """As far as it shows."""
        spread = 0.0 if self.spread == 0 else math.nan  # what is usual at the start, of any module, is not known
        return Paths(spread, source=self.source)
