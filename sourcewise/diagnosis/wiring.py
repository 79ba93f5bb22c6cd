"""What the rules over wiring are given: a network, a batch, and how it is to be trained; and what these show."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from sourcewise.data.batches import Batch
from sourcewise.data.encoding import ExampleSet
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.diagnosis.measures.first_step import FirstStep, measure_first_step
from sourcewise.diagnosis.measures.wiring import (
    STEADY,
    Labels,
    Loss,
    Paths,
    between_passes,
    measure_labels,
    measure_loss,
    measure_paths,
)
from sourcewise.diagnosis.rule import CannotTell
from sourcewise.errors import RequestError
from sourcewise.model.protocol import Network
from sourcewise.training.objective import Objective
from sourcewise.training.setup import TrainingSetup

EXAMPLES = 12  # of the batch
NOISY = (
    "whether the source, the encoder, padding and later tokens reach the logits, and whether the loss is that of "
    "the labels (WIR004 to WIR007, WIR010, WIR011): two passes over one batch differ by themselves (WIR021)"
)
Summed = Callable[[Batch], Any]  # the nats of a batch, as a training sums them


@dataclass(frozen=True, slots=True)
class Plan:
    """How a network is to be trained: from random weights (`fresh`), but for parts that were `loaded`, and so long."""

    steps: int
    fresh: bool
    rate: float  # at its peak
    weight_decay: float
    warmup: int = 0
    loaded: Collection[str] = ()
    standing: str = ""  # why no weight will ever change, where that is so


@dataclass(frozen=True)
class Wiring:
    """A network of the protocol and a batch; each measure is made when it is asked for.

    `begins` is the id that the tokenizer itself puts before every target, if it does; `as_asked` says that a bypass is
    wanted; `summed` are ways in which the training sums nats, None the network's own loss. With a `plan` a training
    begins from here, whose first step `first` measures; it raises RequestError where nothing learns.
    """

    network: Network
    batch: Batch
    tokenizer: Tokenizer | None = None
    begins: int | None = None
    as_asked: bool = False
    summed: Sequence[Summed | None] = (None,)
    plan: Plan | None = None
    first: Callable[[], FirstStep] | None = None

    @classmethod
    def of(cls, prepared: TrainingSetup) -> Wiring:
        """That of a training that is about to begin."""
        recipe, network, tokenizer = prepared.recipe, prepared.network, prepared.tokenizer
        batch, train = one_batch(prepared.train), recipe.train
        steps, epochs = planned(prepared)
        loaded = ("features",) if recipe.model.feature_encoder.weights else ()
        standing = "" if train.learning_rate else "train.learning_rate is 0: no weight will ever change"
        plan = Plan(
            steps,
            not recipe.model.weights,
            train.learning_rate,
            train.weight_decay,
            train.warmup_steps,
            loaded,
            standing,
        )

        def first() -> FirstStep:
            step = measure_first_step(network, batch, train, tokenizer.unk_id)
            unfreeze = train.unfreeze.model_dump(exclude={"rate"})
            never = {part for part, epoch in unfreeze.items() if epoch and epoch >= epochs}
            weights = (replace(w, frozen=True) if w.part in never and w.learns else w for w in step.weights)
            return replace(step, weights=tuple(weights))

        summed = (None, _training_loss(prepared))
        return cls(network, batch, tokenizer, tokenizer.begins, recipe.model.route == "bypass", summed, plan, first)

    @cached_property
    def all_paths(self) -> Paths:
        """What moves the logits, whether or not they move by themselves."""
        return measure_paths(self.network, self.batch)

    @cached_property
    def moved(self) -> float:
        """How far the logits are from one pass to the next, over the largest."""
        return between_passes(self.network, self.batch)

    @property
    def noisy(self) -> bool:
        """Whether two passes give different logits, so that what is found by comparing passes says nothing."""
        return self.moved > STEADY

    @property
    def paths(self) -> Paths:
        """What moves the logits. Raises CannotTell where they move by themselves."""
        if self.noisy:
            raise CannotTell(NOISY)
        return self.all_paths

    @cached_property
    def labels(self) -> Labels | None:
        """What stands in the labels; None where the logits are not finite."""
        return measure_labels(self.network, self.batch) if self.all_paths.finite else None

    @cached_property
    def losses(self) -> list[Loss]:
        """The losses that are not those of the labels; none where logits move by themselves."""
        if self.noisy or not self.all_paths.finite:
            return []
        found = [measure_loss(self.network, self.batch, summed) for summed in self.summed]
        return [loss for loss in found if loss.like is not None]

    @property
    def any_step(self) -> FirstStep | None:
        """The first step, finite or not; None where there is to be none, nothing learns, or logits are not finite."""
        return self._taken if isinstance(self._taken, FirstStep) else None

    @property
    def step(self) -> FirstStep | None:
        """The first step, where its gradient is finite."""
        return self.any_step if self.any_step is not None and math.isfinite(self.any_step.norm) else None

    @property
    def nothing_learns(self) -> str:
        """Why not one weight would learn anything; "" where some do."""
        return self._taken if isinstance(self._taken, str) else ""

    @cached_property
    def _taken(self) -> FirstStep | str | None:
        if self.first is None or self.plan is None or self.plan.standing or not self.all_paths.finite:
            return None
        try:
            return self.first()
        except RequestError as nothing:
            return str(nothing)


@dataclass(frozen=True, slots=True)
class Settings:
    """Options that take something away from a training: kind, name and value of each; and AdamW's first decay."""

    options: Sequence[tuple[str, str, float]]
    first_moment: tuple[str, float]
    steps: int

    @classmethod
    def of(cls, prepared: TrainingSetup) -> Settings:
        """Those of a recipe."""
        train = prepared.recipe.train
        kinds = {"label_smoothing": "smoothing", "word_dropout": "word_dropout"}
        kinds |= dict.fromkeys(("guided_attention", "attention_mass", "contrastive"), "weight")
        options = [(kind, f"train.{key}", float(getattr(train, key))) for key, kind in kinds.items()]
        options.append(("dropout", "model.attention_dropout", prepared.recipe.model.attention_dropout))
        return cls(options, ("train.beta1", train.beta1), planned(prepared)[0])


def one_batch(encoded: ExampleSet) -> Batch:
    """A dozen examples of a set's shorter half, with targets of all lengths there, laid out as in training."""
    sizes = encoded.source_lengths + encoded.target_lengths
    shorter = np.flatnonzero(sizes <= np.median(sizes))
    shorter = shorter[np.argsort(encoded.target_lengths[shorter], kind="stable")]
    places = np.linspace(0, len(shorter) - 1, min(EXAMPLES, len(shorter))).astype(int)
    return encoded.batch(shorter[places], coarse=True)


def planned(prepared: TrainingSetup) -> tuple[int, float]:
    """How many steps and epochs the training has; steps with padding left out: at least so many."""
    train, examples = prepared.recipe.train, prepared.train
    tokens = int(examples.source_lengths.sum() + examples.target_lengths.sum())
    batches = max(tokens / train.batch_tokens, len(examples) / (train.batch_size or len(examples)))
    epoch = max(1.0, batches / train.accumulate)
    if train.steps:
        return train.steps, train.steps / epoch
    return max(1, math.ceil(epoch * train.epochs)), float(train.epochs)


def _training_loss(prepared: TrainingSetup) -> Summed:
    """A batch's cross-entropy as the training sums it, without what is drawn or weighed."""
    plain = {"label_smoothing": 0.0, "ctc_weight": 0.0, "focal": 0.0, "word_dropout": 0.0}
    options = prepared.recipe.train.model_copy(update=plain)
    objective = Objective(prepared.network, options, prepared.tokenizer.unk_id)
    return lambda batch: objective(batch)[1]
