"""The doctor in a loop of one's own.

    doctor = sourcewise.doctor(model, optimizer)
    for batch in loader:
        ...                                     # the loop as it is
        doctor.step(loss, batch)
    doctor.evaluate(valid_loader)
    print(doctor.diagnosis)

Nothing of the loop is called or changed for it: some steps are watched, by hooks that are taken off again, and what
passes there tells how the batches are to be read, which weights get a gradient and how far they move.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from torch import Tensor, distributed, nn

from sourcewise.diagnosis.answer import Diagnosis
from sourcewise.diagnosis.measures.first_step import Weight
from sourcewise.diagnosis.measures.freshness import looks_trained
from sourcewise.diagnosis.measures.repeated import repeated_in
from sourcewise.diagnosis.observed import Moves
from sourcewise.diagnosis.rules import look
from sourcewise.diagnosis.wiring import Wiring
from sourcewise.errors import RequestError
from sourcewise.integrations.cures import LOOP
from sourcewise.integrations.doctor import guarded
from sourcewise.integrations.finite import broken_weights, half_of
from sourcewise.integrations.loop.batches import examples_in, tensors_of
from sourcewise.integrations.loop.beside import BesideTraining
from sourcewise.integrations.loop.data import Passed, Waiting, flat
from sourcewise.integrations.loop.evaluating import Reader, evaluated, some_batches
from sourcewise.integrations.loop.gradients import UNTAKEN, Arrivals
from sourcewise.integrations.loop.judging import Judging
from sourcewise.integrations.loop.modes import InBothModes
from sourcewise.integrations.loop.modules import named_modules, parts_of
from sourcewise.integrations.loop.probing import moves_of
from sourcewise.integrations.loop.readers import reader_of
from sourcewise.integrations.loop.reading import (
    given_tensors,
    padding_of,
    understand,
    with_functions,
    zeros_at_start,
)
from sourcewise.integrations.loop.seen import History, Seen
from sourcewise.integrations.loop.sides import look_at_sides
from sourcewise.integrations.loop.squeezed import squeezed_by
from sourcewise.integrations.loop.states import Carried
from sourcewise.integrations.loop.stepping import Stepping, optimizers_in, planned, weights_of
from sourcewise.integrations.loop.tracing import ReadBy, traced
from sourcewise.integrations.loop.understood import Asked, Understood
from sourcewise.integrations.loop.watching import Watching
from sourcewise.integrations.recorder import Recorder
from sourcewise.integrations.telling import PREFIX, Told, of_set
from sourcewise.tracking import Trackers

EVERY = 10  # steps, from one that is watched to the next
AT_FIRST = (1, 2, 5)  # steps that are watched besides
UNREAD = "no step has told how a batch is read: call doctor.step(loss, batch) in the loop before"


class LoopDoctor(Judging):
    """Looks at a training of torch modules; see `doctor`."""

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        asked: Asked,
        *,
        steps: int,
        every: int,
        examples: int,
        trackers: Trackers,
        trained: bool = False,
    ) -> None:
        super().__init__(Told(), LOOP)
        self.told.trackers = trackers
        self.looks = not distributed.is_available() or not distributed.is_initialized() or distributed.get_rank() == 0
        self.history = self.told.state = History()
        self.modules = named_modules(model)
        self.model = nn.ModuleList([module for _, module in self.modules])
        self.asked, self.every, self.examples = asked, every, examples
        self.stepping = Stepping(optimizers_in(optimizer), self.guard)
        self.watching = Watching(self.modules, self.guard)
        self.arrivals = Arrivals(self.stepping, self.guard)
        self._beside, self._carried = BesideTraining(), Carried()
        self.watching.begins = self._step_begins
        self.passed, self.stream = Passed(), Waiting()
        self.plan = planned(self.stepping.optimizers, self.model, steps=steps, trained=trained)
        self.recorder = Recorder(self.plan, cure=LOOP.not_finite)
        self.recorder.started()
        self.understood: Understood | None = None
        self._shares: list[tuple[float, float]] = []  # of each step looked at, loss / nats and tokens / places
        self._left: list[tuple[int, int]] = []  # of each step looked at, labels that do not count, and all
        self._losses: list[Tensor] = []  # since the last line of the log
        self._seen: Seen | None = None  # a watched step that may not be over
        self._began = self._first = tuple[Weight, ...]()
        self._reader: Reader | None = None
        self._moves: Moves | None = None  # what moves the outputs, once it was tried
        self._modes: InBothModes | None = None
        self._flattened = self._squeezed = self._repeated = ""
        self._smoothed, self._tempered = 0.0, 1.0
        self._zeros: dict[str, tuple[Any, bool]] = {}
        self._trained = False  # by others, before this training
        if self.looks:
            self._begin()

    @guarded("the weights before the first step")
    def _begin(self) -> None:
        self._zeros = zeros_at_start(parts_of(self.modules), self.modules)
        self._modes = InBothModes(self.modules)
        self._repeated = repeated_in(self.modules)
        self._trained = self.plan.trained or looks_trained(self.model)
        if broken := broken_weights(self.model):
            self._broken = True
            self.pieces["wiring"] = look(Wiring(broken=f"not finite are the weights {broken}", plan=self.plan))
            self.tell()
        self._watch()
        self._began = weights_of(parts_of(self.modules), self.stepping)

    def _step_begins(self) -> None:
        """The first call of a step that is watched: what steps before belongs to the batch before."""
        self.stepping.start()
        if self._modes is not None:
            self._modes.began()

    @guarded("the step")
    def step(self, loss: Any, batch: Any = None) -> None:
        """Once for each batch that is trained on, anywhere behind its loss: what the loop has, as it is."""
        self.history.global_step += 1
        number = self.history.global_step
        if not self.looks:
            return
        if isinstance(loss, Tensor):
            if self.watching.on:
                self.arrivals.reached(loss)
                self._squeezed = squeezed_by(loss)
            loss = loss.detach()
            self._losses.append(loss)
        self._steps.loss(number, loss, None)
        if batch is not None and (self.stream.wants or not self.passed.full):
            whole, how = with_functions(tensors_of(batch), batch, self.asked)
            held = flat(whole, how)
            self.passed.add(held, whole)
            self.stream.take_in(number, held, self._known)
        if self.watching.on:
            self.watching.stop()
            self._seen = Seen(number, loss, batch)
        self.arrivals.counted()
        self._settle()
        if self._seen is None and (number + 1 in AT_FIRST or (number + 1) % self.every == 0):
            self._watch()

    def evaluate(self, loader: Iterable[Any], name: str = "", *, held_out: bool = True) -> dict[str, Any]:
        """Source bits, and outputs where `generate=` was given, of held-out batches: `loss`, `source_bits` and others.

        The first batches of the loader are read, as many as hold `examples`; those that are not `held_out` are known to
        be trained on. {} where they cannot be looked at; why is in `diagnosis.not_checked`.
        """
        figures: dict[str, Any] = {}
        if not self.looks:
            return figures
        self._settle(now=True)
        self._evaluate(loader, name, figures, held_out)
        self.tell({f"{PREFIX}{key}": value for key, value in figures.items() if isinstance(value, (int, float))})
        return figures

    def trace(self, batch: Any) -> list[ReadBy]:
        """What each example of a batch is read from, token by token; no attention is needed. Raises RequestError."""
        self._settle(now=True)
        if self._reader is None:
            raise RequestError(UNREAD)
        with self.look():
            return traced(self._reader, batch, with_functions(tensors_of(batch), batch, self.asked)[0])

    @property
    def diagnosis(self) -> Diagnosis:
        """What is known so far: findings ranked, the cause first, and what could not be checked."""
        self._settle(now=True)
        return super().diagnosis

    def _watch(self) -> None:
        """The next step is looked at."""
        self.watching.start()
        self.stepping.start()
        self.arrivals.start()

    @guarded("what a step showed")
    def _settle(self, *, now: bool = False) -> None:
        """Judge the step that was watched, once its optimizers have moved the weights."""
        seen = self._seen
        waits = self.stepping.optimizers and not self.stepping.taken and not now
        if seen is None or (waits and (any(self.stepping.counts) or self.history.global_step < UNTAKEN)):
            return
        self._seen = None
        self.recorder.plan = replace(self.recorder.plan, half=half_of(self.model, self.watching.half))
        self.stepping.stop()
        self.arrivals.stop()
        self.judge_finite()
        if self.is_lost:
            return
        weights = weights_of(parts_of(self.modules), self.stepping)
        self._first = self._first or weights
        if self._modes is not None:
            self._modes.trained_on(seen.number, self.watching.calls)
        with self.guard("states from batch to batch"):
            self._carried.look(seen.number, self.watching.recurrent)
        self._read(seen)
        self._reach(seen)
        self._compare(seen)
        self._judge_wiring(seen, weights)
        self._log(seen, weights)
        self._judge_data()
        self.judge_course()
        self.watching.forget()
        self.tell()

    @guarded("what the batches hold")
    def _read(self, seen: Seen) -> None:
        """How the batches are to be read, where that is not known yet."""
        if self.understood is not None:
            self._read_again(seen, self.understood)
            return
        if not self.watching.saying and not self.watching.deep:
            self.watching.deep = True  # the next time
            return
        named = tensors_of(seen.batch) or given_tensors(self.watching.calls)
        named, asked = with_functions(named, seen.batch, self.asked)
        self.understood = understand(self.watching, named, asked, self.modules, seen.given(self.watching))
        print(f"sourcewise: understood: {self.understood.words}", file=sys.stderr)
        with self.guard("source use"):
            self._reader = reader_of(self.model, self.watching, self.understood, self.asked, seen, named)

    def _read_again(self, seen: Seen, known: Understood) -> None:
        """What the first step that was watched could not show: a batch of equal lengths has no padding."""
        if known.hides_pad or self.asked.pad is not None or not known.whole:
            return
        named, _ = with_functions(tensors_of(seen.batch) or given_tensors(self.watching.calls), seen.batch, self.asked)
        if (pad := padding_of(self.watching, named, known, self.modules)) is None:
            return
        self.understood, self._moves = replace(known, pad=pad, hides_pad=True), None
        print(f"sourcewise: understood: padding is {pad}, not counted", file=sys.stderr)
        with self.guard("source use"):
            self._reader = reader_of(self.model, self.watching, self.understood, self.asked, seen, named)

    @guarded("what moves the outputs")
    def _reach(self, seen: Seen) -> None:
        """How far other sources and words move the outputs, once, when a step has opened what begins at zero."""
        if self._reader is None or self._moves is not None or seen.number == 1 or seen.batch is None:
            return
        with self.look():
            named, _ = with_functions(tensors_of(seen.batch), seen.batch, self.asked)
            self._moves = moves_of(self._reader, seen.batch, named, list(self.model), fresh=not self._trained)

    @guarded("what eval mode computes")
    def _compare(self, seen: Seen) -> None:
        """Both modes on one training batch, now and then."""
        if self._modes is None or self._reader is None or seen.batch is None:
            return
        if self._modes.due(seen.number, self._moves):
            with self.look():
                named, _ = with_functions(tensors_of(seen.batch), seen.batch, self.asked)
                self._modes.compare(seen.number, self._reader, seen.batch, named)

    @guarded("the evaluation")
    def _evaluate(self, loader: Iterable[Any], name: str, figures: dict[str, Any], held_out: bool) -> None:
        if self._reader is None:
            raise RequestError(UNREAD)
        with self.look():
            batches = some_batches(loader, self.examples, lambda batch: examples_in(tensors_of(batch)))
            read = [(batch, with_functions(tensors_of(batch), batch, self.asked)[0]) for batch in batches]
            found, measured = evaluated(self._reader, read, self.asked.generate, trained=self._trained)
            found["layout"] = look_at_sides(self._reader, self.passed.kept, read)
            if held_out:
                found["against"] = self._beside.ids(self._reader.understood, self.passed.kept, read, name)
            if beside := self._beside.look(self._reader.understood, self.passed.kept, read, name):
                found["beside"] = beside
        self.pieces |= {f"{what} {name}".strip(): of_set(piece, name) for what, piece in found.items()}
        figures |= measured
        self.restored(name, measured, self.history.global_step)
        self.recorder.evaluated(measured, self.history.global_step)
        self.judge_course()
