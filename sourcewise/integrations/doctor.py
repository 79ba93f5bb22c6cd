"""The doctor in somebody else's training, whoever runs it: what it found, and how it looks without doing harm.

A host tells what happens: a Hugging Face Trainer through `huggingface`, a loop of one's own through `loop`. Both put
what they see into the subjects of `sourcewise.diagnosis`, for the same rules. Whatever goes wrong in a look becomes a
line "not checked: why"; nothing of the training ends, changes or is cut short for it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from typing import Any

from sourcewise.diagnosis.answer import Diagnosis, Piece
from sourcewise.diagnosis.keeping import Keeping
from sourcewise.diagnosis.ranking import put_together
from sourcewise.diagnosis.rules import look
from sourcewise.diagnosis.whole import of_course
from sourcewise.errors import RequestError
from sourcewise.integrations.cures import Host, translated
from sourcewise.integrations.finite import NotFinite, Steps, broken_moments, broken_weights
from sourcewise.integrations.recorder import Recorder
from sourcewise.integrations.telling import Told, said
from sourcewise.integrations.untouched import untouched


def guarded(what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """For every entry of a doctor, or of a host that has one: whatever goes wrong inside ends nobody's training."""

    def decorate(entry: Callable[..., None]) -> Callable[..., None]:
        @wraps(entry)
        def entered(self: Any, *given: Any, **named: Any) -> None:
            with getattr(self, "doctor", self).guard(what):
                entry(self, *given, **named)

        return entered

    return decorate


class Doctor:
    """What is known of a training so far. The host keeps `model` and `optimizer` as they are.

    `steps_taken` gives the last step that was taken.
    """

    def __init__(self, told: Told, host: Host) -> None:
        self.told, self.host = told, host
        self.recorder = Recorder(cure=host.not_finite)
        self.pieces: dict[str, Piece] = {}  # by what was looked at, the latest look
        self.seconds = 0.0
        self.steps_taken: Callable[[], int] = lambda: 0
        self.model: Any = None
        self.optimizer: Any = None
        self._keeping = Keeping()
        self._evaluations: dict[str, list[tuple[int, float]]] = {}  # of each set that is evaluated
        self._steps = Steps()
        self._broken = False  # weights that were not finite before the first step

    @property
    def diagnosis(self) -> Diagnosis:
        """What is known so far: findings ranked, the cause first, and what could not be checked."""
        pieces = [*self.pieces.values(), Piece((), self.told.problems)]
        return translated(put_together(pieces, self.seconds), self.host)

    @property
    def is_lost(self) -> bool:
        """Whether the weights are known not to be finite: nothing that comes of them tells more."""
        return self._broken or self.recorder.lost

    def tell(self, figures: Mapping[str, float] | None = None) -> None:
        """Whoever reads the training's log, what is new."""
        with self.guard(self.host.log):
            self.told.findings(self.diagnosis.findings, figures)

    def judge_finite(self, *, weights: bool = False) -> None:
        """Whether losses and gradients since the last time are finite; the weights where these are not, or if asked."""
        if self.is_lost:
            return
        found = self._steps.asked()
        if weights and not found:
            found = [NotFinite(self.steps_taken(), None, None)]
        for each in found:
            broken, gradients = ("", "") if each.harmless else (broken_weights(self.model), "")
            if not broken and not each.harmless:
                gradients = broken_weights(self.model, gradients=True)
            moments = "" if broken or not weights else broken_moments(self.model, self.optimizer)
            if broken or moments or each.loss is not None or each.norm is not None:
                self.recorder.not_finite(each, broken, gradients, moments)
                self.judge_course()
                self.tell()

    def judge_course(self) -> None:
        """The rules over the course of the training."""
        self.pieces["course"] = of_course(self.recorder.course, "no loss of it was logged so far")

    def keeps(self, keeping: Keeping) -> None:
        """By which figure the training picks a checkpoint."""
        self._keeping = keeping
        self.pieces["keeping"] = look(keeping)
        self.tell()

    def restored(self, name: str, figures: Mapping[str, Any], step: int) -> None:
        """The rules over what is kept, with one more evaluation of a set."""
        if isinstance(figures.get("loss"), float):
            losses = self._evaluations.setdefault(name, [])
            losses.append((step, figures["loss"]))
            self.pieces[f"keeping {name}".strip()] = look(replace(self._keeping, losses=losses))

    @contextmanager
    def look(self) -> Iterator[None]:
        """Within: the model is looked at; afterwards it, and all that draws at random, is as before."""
        start = time.perf_counter()
        try:
            with untouched(self.model):
                yield
        finally:
            self.seconds += time.perf_counter() - start

    @contextmanager
    def guard(self, what: str) -> Iterator[None]:
        """Within: an error becomes a line "not checked: why", once per kind. An interrupt is none of ours."""
        try:
            yield
        except Exception as problem:
            with contextlib.suppress(Exception):
                self.told.problem(what, said(problem))


def refuse_few(examples: int, name: str) -> None:
    """Raises RequestError where too few examples are to be looked at."""
    if examples < 2:
        raise RequestError(f"{name}: examples is {examples}; source bits take 2 or more")
