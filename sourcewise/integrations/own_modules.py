"""Modules of somebody's own in a Trainer: the doctor for loops looks at them, beside the one for transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from sourcewise.diagnosis.finding import Finding
from sourcewise.integrations.doctor import Doctor
from sourcewise.integrations.loop import doctor as doctor_of_loop
from sourcewise.integrations.passing import as_tensors
from sourcewise.integrations.telling import Told

WIRING = ("wiring", "coming")  # pieces that a doctor which reads data and course itself takes from here
EVALUATED = ("outputs", "likelihood", "saying", "layout", "against", "beside")  # pieces of an evaluation


class Quiet(Told):
    """Tells nothing itself: what is found is told by the doctor of the Trainer."""

    def findings(self, found: Sequence[Finding], figures: Mapping[str, float] | None) -> None:
        """Not here."""


def is_own(model: Any) -> bool:
    """Whether a model is a module of somebody's own, of which transformers' ways are not known."""
    return isinstance(model, nn.Module) and not hasattr(model, "get_output_embeddings")


class OwnModules:
    """The doctor for loops in a Trainer whose model is a module of somebody's own; what it finds is the `doctor`'s.

    Where the `doctor` itself reads data and course, only wiring and evaluations are taken from here.
    """

    def __init__(self, doctor: Doctor, model: nn.Module, optimizer: Any, *, steps: int, data: bool) -> None:
        self.doctor, self.data = doctor, data
        self.loop = doctor_of_loop(model, optimizer, steps=steps)
        told = Quiet()
        told.state = self.loop.history
        self.loop.told = told
        self._batch: Any = None  # of the training, as the model is to be given it
        self._loss: Any = None

    def passed(self, batch: Any) -> None:
        """A batch of the training, as the model is given it."""
        self._batch = batch

    def lost(self, loss: Any) -> None:
        """The loss of the batch that passed last."""
        self._loss = loss

    def step(self) -> None:
        """A step of the training, or a part of one, is over."""
        batch, self._batch = self._batch, None
        if batch is None:
            return
        self.loop.step(self._loss, as_tensors(batch) if isinstance(batch, Mapping) else batch)
        self._take()

    def evaluated(self, batches: Sequence[Any], name: str) -> dict[str, Any]:
        """Figures of an evaluation, by the batches that were kept of it; {} where they cannot be read."""
        figures = self.loop.evaluate(batches, name)
        self._take()
        return figures

    def _take(self) -> None:
        """What is known becomes the doctor's."""
        for name, piece in self.loop.pieces.items():
            if self.data or name in WIRING or name.split()[0] in EVALUATED:
                self.doctor.pieces[name] = piece
        for words in self.loop.told.problems:
            what, _, why = words.partition(": ")
            self.doctor.told.problem(what, why)
        self.doctor.tell()
