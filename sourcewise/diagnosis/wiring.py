"""What the rules over wiring are given: a network, a batch, and how it is to be trained; and what these show."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from sourcewise.data.batches import Batch
from sourcewise.data.encoding import ExampleSet
from sourcewise.diagnosis.borrowing import borrowed
from sourcewise.diagnosis.measures.choices import choiceless_in
from sourcewise.diagnosis.measures.first_step import FirstStep, Optimizer, measure_first_step
from sourcewise.diagnosis.measures.freshness import drawn_by_part
from sourcewise.diagnosis.measures.laid import Laid
from sourcewise.diagnosis.measures.repeated import repeated_in
from sourcewise.diagnosis.measures.scrambled import scrambled_in
from sourcewise.diagnosis.measures.signals import Learning
from sourcewise.diagnosis.measures.wiring import (
    STEADY,
    Labels,
    Loss,
    Paths,
    between_passes,
    fed,
    measure_labels,
    measure_loss,
    measure_paths,
)
from sourcewise.diagnosis.observed import Observed, Rounded
from sourcewise.diagnosis.plan import Plan
from sourcewise.diagnosis.rule import CannotTell
from sourcewise.errors import RequestError
from sourcewise.model.families.huggingface import HuggingFaceNetwork
from sourcewise.model.network import Seq2Seq
from sourcewise.model.protocol import Network

EXAMPLES = 12  # of the batch
Summed = Callable[[Batch], Any]  # the nats of a batch, as a training sums them


class Start(NamedTuple):
    """What is known of the token that the decoder begins with: as text, "" where it is special, and set elsewhere."""

    text: str = ""
    configured: int | None = None
    where: str = "the configuration"  # it is set so
    odd: str = ""  # why no network of its kind begins with it


class Hidden(NamedTuple):
    """How an attention mask that is not that of the padding hides source positions of a batch."""

    real: int  # positions
    hidden: int  # of these
    padding: int
    shown: int  # of the padding
    masked: bool  # whether the batch has a mask at all


class Within(NamedTuple):
    """Padding that stands between words: rows, and in how many of their sources and targets it does."""

    rows: int
    sources: int
    targets: int
    pad: int
    hidden: bool  # whether a mask or the loss leaves it out, as far as is known


class Modes(NamedTuple):
    """What evaluation computes otherwise than training: norms whose statistics are as they were made after so many
    steps, in words; nats of a token of one training batch in both modes; passes without gradients in training mode; and
    training steps in succession in which dropout was off, those that were looked at, the first of them, and how much it
    would be; and steps that were looked at and all began with the same random state (`seeded`), of a network with
    dropout.
    """

    norms: Sequence[str] = ()
    steps: int = 0
    training: float = math.nan
    evaluation: float = math.nan
    passes: int = 0
    quiet: int = 0
    since: int = 0
    dropout: float = 0.0
    seeded: int = 0


class Inside(NamedTuple):
    """A network of ours before its first step, and the set that it is to be trained on."""

    network: Seq2Seq
    batch: Batch
    examples: ExampleSet
    plan: Plan
    learning: Learning


@dataclass(frozen=True)
class Wiring:
    """A network of the protocol and a batch; each measure is made when it is asked for.

    With a `plan` a training begins from here, on `examples`, whose first step the `optimizer` takes: it is made for it
    where the weights are copies, and raises RequestError where nothing learns. `summed` are ways in which the training
    sums nats, None the network's own loss; `begins` is the id that the tokenizer itself puts before every target, if
    it does; `bypass` says what asks for a way past the encoder. Where something is `broken`, not finite in words, or
    all labels of `unlabelled` rows do not count, there need be neither network nor batch.
    """

    network: Network | None = None
    batch: Batch | None = None
    plan: Plan | None = None
    examples: ExampleSet | None = None
    optimizer: Callable[[], Optimizer] | None = None
    learning: Learning | None = None  # as the training learns
    summed: Sequence[Summed | None] = (None,)
    start: Start | None = None
    begins: int | None = None
    width: int | None = None  # d_model
    bypass: str = ""
    hidden: Hidden | None = None
    laid: Laid | None = None
    untrained: bool = False  # whether outputs are judged of a network whose norms and biases are as networks begin
    from_scratch: bool = False  # whether it is of a run that began with a network as drawn, and trained it
    where: str = ""  # of which batches that is, " of the evaluation"; "" for those of the training
    unfed: str = ""  # why the decoder does not read the targets, where that is known
    aside: str = ""  # which other labels outputs are held against, where the loss is the training's own
    tied: str = ""  # an output layer that the configuration says is the embedding, in words
    broken: str = ""
    unlabelled: int = 0
    within: Within | None = None
    modes: Modes | None = None
    rounded: Rounded | None = None
    observed: Observed | None = None  # in a training of somebody's own modules; then there is no network

    about = "the wiring"

    @cached_property
    def all_paths(self) -> Paths:
        """What moves the logits, whether or not they move by themselves."""
        if self.observed is not None:
            return self.observed.paths
        if self.network is None or self.batch is None:
            return Paths(math.nan, finite=False)
        return measure_paths(self.network, self.batch)

    @cached_property
    def drawn(self) -> dict[str, tuple[int, int, int, int]]:
        """By part: how many of its matrices look as drawn, of how many; and the same of those of all other parts."""
        return {} if self.network is None else drawn_by_part(self.network.parts())

    @cached_property
    def moved(self) -> float:
        """How far the logits are from one pass to the next, over the largest."""
        if self.observed is not None:
            return self.observed.moves.itself
        return between_passes(self.network, self.batch) if self.network is not None and self.batch is not None else 0.0

    def check_steady(self) -> None:
        """Raises CannotTell where two passes give different logits: what is found by comparing passes says nothing."""
        if self.moved > STEADY:
            reach = "whether the source, the encoder, padding and later tokens reach the logits"
            why = "two passes over one batch differ by themselves (WIR021)"
            raise CannotTell(f"{reach}, and whether the loss is that of the labels", why)

    @cached_property
    def choiceless(self) -> str:
        """Where weights of attention are no shares of what they add up, in words; of modules of somebody's own."""
        if self.observed is not None:
            return self.observed.moves.choiceless
        return self._looked_into(choiceless_in)

    @cached_property
    def scrambled(self) -> str:
        """Where numbers of a batch are viewed in another shape as if that turned its axes, in words; likewise."""
        if self.observed is not None:
            return self.observed.moves.scrambled
        return self._looked_into(lambda run, slots: scrambled_in([self.network.model], run))  # type: ignore[union-attr]

    def _looked_into(self, look: Callable[[Callable[[], Any], int], str]) -> str:
        """What is seen in a pass of a model of others over the batch, with so many places of memory; "" of ours."""
        network, batch = self.network, self.batch
        if not isinstance(network, HuggingFaceNetwork) or batch is None or not self.all_paths.finite:
            return ""
        with borrowed(network), torch.no_grad():
            on = batch.to(network.device)
            tokens = fed(on.labels, network.start_id, network.pad_id)
            slots = network.encode(on.source).mask.shape[1]  # before the pass that is looked into, which encodes, too
            return look(lambda: network.decode(tokens, network.encode(on.source)), slots)

    @cached_property
    def repeated(self) -> str:
        """A layer that stands several times in its list, in words."""
        if self.observed is not None:
            return self.observed.repeated
        return repeated_in([("model", self.network.model)]) if isinstance(self.network, HuggingFaceNetwork) else ""

    @property
    def paths(self) -> Paths:
        """What moves the logits. Raises CannotTell where they move by themselves."""
        self.check_steady()
        return self.all_paths

    @cached_property
    def labels(self) -> Labels | None:
        """What stands in the labels; None where the logits are not finite."""
        if self.network is None or self.batch is None or not self.all_paths.finite:
            return None
        return measure_labels(self.network, self.batch)

    @cached_property
    def losses(self) -> list[Loss]:
        """The losses that are not those of the labels. Raises CannotTell where logits move by themselves."""
        self.check_steady()
        if self.network is None or self.batch is None or not self.all_paths.finite:
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
        if self.observed is not None:
            return self.observed.step
        if self.optimizer is None or self.plan is None or self.plan.standing or not self.all_paths.finite:
            return None
        try:
            return measure_first_step(self.network, self.batch, self.optimizer)  # type: ignore[arg-type]
        except RequestError as nothing:
            return str(nothing)

    @property
    def inside(self) -> Inside | None:
        """What is about to be trained, to look into; None where no training begins. Raises CannotTell."""
        if self.plan is None or self.batch is None:
            return None
        if not isinstance(self.network, Seq2Seq) or self.examples is None or self.learning is None:
            what = "what runs through the network before its first step, and whether it can learn a batch by heart"
            raise CannotTell(what, "it is none of ours")
        return Inside(self.network, self.batch, self.examples, self.plan, self.learning)


def one_batch(encoded: ExampleSet) -> Batch:
    """A dozen examples of a set's shorter half, with targets of all lengths there, laid out as in training."""
    sizes = encoded.source_lengths + encoded.target_lengths
    shorter = np.flatnonzero(sizes <= np.median(sizes))
    shorter = shorter[np.argsort(encoded.target_lengths[shorter], kind="stable")]
    places = np.linspace(0, len(shorter) - 1, min(EXAMPLES, len(shorter))).astype(int)
    return encoded.batch(shorter[places], coarse=True)
