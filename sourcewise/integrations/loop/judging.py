"""What a watched step of a loop is judged by: the rules over wiring, the course of the training, and its data."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from sourcewise.diagnosis.measures.first_step import Weight
from sourcewise.diagnosis.observed import Moves, Observed
from sourcewise.diagnosis.pairs import FEWEST
from sourcewise.diagnosis.rules import look
from sourcewise.diagnosis.wiring import Wiring
from sourcewise.integrations.doctor import Doctor, guarded
from sourcewise.integrations.loop.batches import tensors_of
from sourcewise.integrations.loop.data import Passed, Waiting, within_of
from sourcewise.integrations.loop.edges import edges_of
from sourcewise.integrations.loop.flattened import flattened_otherwise
from sourcewise.integrations.loop.gradients import Arrivals
from sourcewise.integrations.loop.modes import InBothModes
from sourcewise.integrations.loop.probing import hidden_by
from sourcewise.integrations.loop.reading import (
    detached_from,
    fading_of,
    first_step,
    given_tensors,
    least_left,
    state_left,
    uncounted_in,
    with_functions,
    zeros_now,
)
from sourcewise.integrations.loop.reordered import reordered
from sourcewise.integrations.loop.seen import History, Seen
from sourcewise.integrations.loop.states import Carried, standing_state
from sourcewise.integrations.loop.stepping import Stepping, line_of
from sourcewise.integrations.loop.tables import standing_tables
from sourcewise.integrations.loop.understood import Asked, Understood
from sourcewise.integrations.loop.viewed import with_views
from sourcewise.integrations.loop.watching import Watching
from sourcewise.integrations.recorder import Recorder
from sourcewise.training.statistics import target_entropy

PATIENT = 5  # steps, in which it need not show yet what the loss is the loss of
FRESH = 0.7  # of the nats that guessing has: who begins above knows nothing yet
SAME = 0.01  # relative: a loss that is so near to the nats of a token is their mean


class Judging(Doctor):
    """A doctor in a loop, as far as it judges what it has seen; `LoopDoctor` sees it."""

    history: History
    model: nn.ModuleList
    asked: Asked
    plan: Any
    recorder: Recorder
    stepping: Stepping
    watching: Watching
    arrivals: Arrivals
    passed: Passed
    stream: Waiting
    understood: Understood | None
    _carried: Carried
    _modes: InBothModes | None
    _moves: Moves | None
    _flattened: str
    _squeezed: str
    _repeated: str
    _smoothed: float
    _tempered: float
    _shares: list[tuple[float, float]]
    _left: list[tuple[int, int]]
    _losses: list[Tensor]
    _began: tuple[Weight, ...]
    _first: tuple[Weight, ...]
    _zeros: dict[str, tuple[Any, bool]]

    @guarded("the wiring")
    def _judge_wiring(self, seen: Seen, weights: tuple[Weight, ...]) -> None:
        """The rules over wiring, with what this step showed."""
        step = first_step(weights, seen.nats(self.watching))
        if seen.number > 1 and not math.isfinite(step.norm):
            return  # the loss of the next step tells
        tokens, places = seen.counted(self.watching)
        nats, known = seen.nats(self.watching), self.understood
        if known is None or known.labels is None:
            named = tensors_of(seen.batch) or given_tensors(self.watching.calls)
            self._flattened = self._flattened or flattened_otherwise(self.watching, named)
            if not self._flattened and seen.number > 1:
                with self.guard("the order of the rows"), self.look():
                    self._flattened = reordered(self.watching, named, self.asked.pad, self.model)
        self._smoothed = max(self._smoothed, seen.smoothing(self.watching))  # once outputs are sure, it shows no longer
        self._tempered = max(self._tempered, seen.temperature(self.watching), key=lambda t: abs(math.log(t)))
        if places and nats:
            self._shares.append((seen.value / nats, tokens / places))
        whole = self._known
        read = with_functions(tensors_of(seen.batch), seen.batch, self.asked)[0] if whole is not None else {}
        collation = whole.collation(read) if whole is not None and read else None
        if whole is not None and (left := uncounted_in(self.watching, read, whole)) is not None:
            self._left.append(left)
        observed = Observed(
            step,
            given=seen.given(self.watching),
            squeezed=self._squeezed,
            repeated=self._repeated,
            loss=seen.value,
            nats=nats,
            shares=tuple(self._shares),
            scale=seen.scale(self.watching),
            smoothing=self._smoothed,
            temperature=self._tempered,
            tokens=tokens,
            places=places,
            zeros=zeros_now(self._zeros, self._first, seen.number),
            state=state_left(self.watching, weights),
            standing=standing_state(self.watching.recurrent),
            carried=self._carried.found,
            detached=detached_from(self.watching, weights),
            edges=edges_of(self.passed.kept, whole, self.watching) if whole is not None else None,
            uncounted=least_left(self._left),
            gradients=self.arrivals.gradients(self.history.global_step, self.model),
            fading=fading_of(self.watching, collation) if collation is not None else None,
            moves=with_views(self._moves, self.watching.calls),
            began=self._began,
            first=self._first,
            early=seen.number == 1,
            unheld=not self.stepping.optimizers,
            flattened=self._flattened,
            tables=standing_tables(self.watching, self.stepping.held, None if known is None else known.pad),
            rates=self.stepping.rates(),
            decay=self.stepping.decay(),
        )
        others: dict[str, Any] = {"rounded": self.stepping.rounded()}
        others["hidden"] = hidden_by(self.watching, collation) if collation is not None else None
        others["modes"] = None if self._modes is None else self._modes.modes(seen.number)
        self.pieces["wiring"] = look(Wiring(plan=self.plan, observed=observed, **others))

    @property
    def _known(self) -> Understood | None:
        """How batches are read, where it is known of both sides."""
        return self.understood if self.understood is not None and self.understood.whole else None

    @guarded("the course of the training")
    def _log(self, seen: Seen, weights: tuple[Weight, ...]) -> None:
        """A line of the course: the loss in nats a token, gradients and updates by part."""
        losses, self._losses = [float(x) for x in self._losses], []
        nats = seen.nats(self.watching)
        scale = nats / seen.value if seen.value > 0 and math.isfinite(nats) else 1.0
        if math.isnan(nats):
            if self.recorder.lines[1:] or seen.number < PATIENT:
                return  # a step that showed less than others, or the first
            self.recorder.plan = replace(self.recorder.plan, other_loss="what the loss is the loss of does not show")
            nats = seen.value
        elif abs(scale - 1) < SAME and losses:
            nats = sum(losses) / len(losses)
        if not math.isfinite(nats):
            return
        if not self.recorder.lines[1:] and self.understood is not None and self.understood.vocabulary:
            fresh = not self.plan.trained and nats >= FRESH * math.log(self.understood.vocabulary)
            self.recorder.plan = replace(self.recorder.plan, fresh=fresh)
        self.recorder.stepped(line_of(seen.number, nats, scale, self.stepping.rate, weights))

    @guarded("the training data")
    def _judge_data(self) -> None:
        """The rules over pairs, on what has passed, each time that it is four times as much; over their order."""
        self.stream.read(self._known)
        if self.stream.due:
            self.pieces["coming"] = look(self.stream.coming())
        if self.understood is None or not (passed := self.passed).more:
            return
        with self.look():
            self.pieces["padding"] = look(Wiring(within=within_of(passed.kept, self.understood)), codes="WIR039")
            pairs = passed.pairs(self.understood, self.model)
            if len(pairs.train) >= FEWEST:
                self.pieces["data"] = look(pairs)
                self.recorder.entropy(target_entropy(pairs.train))
