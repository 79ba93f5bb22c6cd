"""The doctor in a training of Hugging Face's Trainer: its callback tells what passes, and it keeps findings.

Nothing is read, drawn or collated for it: it looks at the batches that a training itself trains and evaluates on. The
wiring is looked at on the first of them; the data when enough has passed; the course at each log; the network and its
outputs at each evaluation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from sourcewise.data.encoding import ExampleSet
from sourcewise.diagnosis.against import Against, Held, held_of, joined
from sourcewise.diagnosis.answer import Piece
from sourcewise.diagnosis.measures.freshness import looks_trained
from sourcewise.diagnosis.measures.laid import Side
from sourcewise.diagnosis.observed import Rounded
from sourcewise.diagnosis.pairs import FEWEST, SAMPLE, Pairs
from sourcewise.diagnosis.rules import absent, look
from sourcewise.diagnosis.wiring import EXAMPLES, Wiring
from sourcewise.errors import RequestError
from sourcewise.integrations.collated import LABELS, CollatedNetwork, Speaker, parts
from sourcewise.integrations.coming import Stream
from sourcewise.integrations.cures import TRAINER
from sourcewise.integrations.doctor import Doctor, guarded
from sourcewise.integrations.evaluated import look_at_led, look_at_lengths, look_at_network, look_at_suppressed
from sourcewise.integrations.fed import held_against, why_unfed
from sourcewise.integrations.finite import Steps, scales
from sourcewise.integrations.laid import side_in
from sourcewise.integrations.overwritten import are_sources, in_data_set, left_behind
from sourcewise.integrations.own_modules import OwnModules
from sourcewise.integrations.passing import First, Passing, Spread, as_tensors
from sourcewise.integrations.passing import joined as as_one
from sourcewise.integrations.rates import groups
from sourcewise.integrations.recorder import Recorder
from sourcewise.integrations.rounding import BeforeStep, later
from sourcewise.integrations.subjects import Training, pairs_of, plan_of, speaker_of, told_to_keep, wiring_of, within_of
from sourcewise.integrations.telling import Told, of_set
from sourcewise.runtime.device import is_host
from sourcewise.training.statistics import target_entropy

LONG = 200  # steps after which it is asked at any rate whether they were finite
UNSEEN = "the batches of the training"


class HuggingFaceDoctor(Doctor):
    """Looks at the training of a Hugging Face model as its callback says what happens in it.

    The callback keeps `model`, `processing` and `optimizer` as they are, and sets `steps_taken` and `active`: whether
    what passes is its own to see.
    """

    def __init__(self, told: Told, examples: int = 96, *, outputs: bool = True, wiring: bool = True) -> None:
        super().__init__(told, TRAINER)
        self.examples, self.outputs, self.wiring = examples, outputs, wiring
        self.processing: Any = None
        self.training: Training | None = None
        self.active: Callable[[], bool] = lambda: True
        self.data_set: Callable[[], Any] = lambda: None  # that it trains on
        self.unlabelled = "no batch was seen"  # why, where no batch of a training was
        self.passing = Passing(self.passed, self.lost)
        self.kept = Spread(examples)  # of an evaluation
        self._labels: Any = None  # of the batch whose loss is still to come
        self._waits = False  # whether the training itself waits for each loss
        self._trained = False  # whether the weights were trained before
        self._told: int | None = None  # tokens that the tokenizer kept of a text
        self._first: First | None = None
        self._pairs: First | None = None
        self.lengths: tuple[int, str] | None = None  # the most tokens of the training's own outputs, and who says so
        self._set = ""  # the evaluation set of the course
        self.stream: Stream | None = None  # of the batches of the training
        self._seen_last: list[dict[str, Any]] = []  # of the last evaluation
        self._halves: BeforeStep | None = None
        self._rounded: Rounded | None = None
        self._held: Held | None = None  # the first examples of the training
        self._side: Side = ""  # where sources are padded in training
        self.own: OwnModules | None = None  # where the model is a module of somebody's own

    @property
    def speaker(self) -> Speaker:
        """What its ids say."""
        return speaker_of(self.model, self.processing)

    # ── what a host tells ─────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, training: Training, other_loss: str, *, waits: bool) -> None:
        """A training begins, whose loss may be another than cross-entropy, and which may wait for each."""
        self.training, self._waits = training, waits
        self._steps, self._broken = Steps(), False
        self._trained = looks_trained(self.model)
        self._told = told_to_keep(self.processing)
        plan = replace(plan_of(self.model, training), other_loss=other_loss)
        self.recorder = Recorder(plan, cure=self.host.not_finite)
        self.recorder.started()
        self.stream = Stream()
        bands = getattr(self.model.config, "num_mel_bins", None)
        self._first, self._pairs = (
            First(EXAMPLES) if self.wiring and self.own is None else None,
            First(SAMPLE, slim=True, bands=bands),
        )
        if not self.wiring:
            self.tell({})

    def stop(self) -> None:
        """No training is to be looked at (any longer)."""
        self._first = self._pairs = None

    @guarded("the batches of the training")
    def passed(self, batch: Any, training: bool) -> None:
        """A batch as the model is to be given it."""
        if not self.active():
            return
        if not training:
            self.kept.add(as_tensors(batch))
            return
        if self.own is not None:
            self.own.passed(batch)
        self._labels = batch.get(LABELS) if isinstance(batch, Mapping) else None
        self._take_in(batch)
        for waiting, looked in ((self._first, self.look_at_first), (self._pairs, self.look_at_pairs)):
            if waiting is not None:
                waiting.add(as_tensors(batch))
                if waiting.full:
                    looked()

    def _take_in(self, batch: Any) -> None:
        """Figures of a batch that is trained on; of none that rules over pairs cannot read."""
        if self.stream is None or not self.stream.wants:
            return
        try:
            source, real, _ = parts(batch, self.speaker.pad_id)
        except (RequestError, TypeError, AttributeError):
            self.stream = None  # the look at the pairs says why
            return
        self.stream.add(self.steps_taken() + 1, source, real, batch[LABELS])

    @guarded("whether losses are finite")
    def lost(self, loss: Any) -> None:
        """The loss of the batch that passed last."""
        labels, self._labels = self._labels, None
        if self.own is not None:
            self.own.lost(loss)
        if self.active() and self.training is not None and not self.is_lost:
            self._steps.loss(self.steps_taken() + 1, loss, labels)

    def before_step(self, *, logged: bool) -> None:
        """Gradients, whether they are finite; their norms at the step that will be `logged`."""
        if self.is_lost:
            return
        self._steps.gradients(self.steps_taken() + 1, self.model)
        if not scales(self.optimizer) and self._at_once:
            self.judge_finite()
        if logged:
            self.recorder.before_step(self.model, self.optimizer)
            self._halves = BeforeStep(self.model.parameters())

    def after_step(self, *, logged: bool) -> None:
        """The updates of a step."""
        if self.is_lost:
            return
        if scales(self.optimizer):
            if getattr(self.optimizer, "step_was_skipped", False):
                self._steps.forget(self.steps_taken() + 1)  # what overflowed in fp16 reached no weight
            if self._at_once:
                self.judge_finite()
        if logged:
            self.recorder.after_step(self.model, self.optimizer)
            self._judge_rounding()

    def logged(self, logs: Mapping[str, Any], *, own: bool) -> None:
        """A line of the training's log, with `loss` and perhaps `grad_norm`; `own`: nobody else saw that loss."""
        if self.is_lost:
            return
        norm, loss = float(logs.get("grad_norm") or 0.0), float(logs["loss"]) if own else None
        if not math.isfinite(norm + (loss or 0.0)) and not getattr(self.optimizer, "step_was_skipped", False):
            self._steps.logged(self.steps_taken(), loss, norm)
        self.judge_finite()
        self.recorder.logged(logs, self.steps_taken())
        self.judge_course()
        self._judge_order()
        self.tell()

    def end(self) -> None:
        """What was put off, and whether the weights are finite."""
        self.look_at_first()
        self.look_at_pairs()
        self.judge_finite(weights=True)
        self.judge_course()
        self._judge_order()
        self.tell()

    def evaluated(self, name: str) -> dict[str, Any]:
        """The network, on the examples of an evaluation that were kept, and its figures; () where there are none."""
        batches = self._seen_last = self.kept.batches()
        self.kept.clear()
        self.judge_finite(weights=True)
        if self.is_lost:
            raise RequestError("the weights are not finite numbers")
        if self.own is not None:
            return self.own.evaluated(batches, name)
        with self.look():
            found, figures = look_at_network(
                self.model, batches, self.processing, self.outputs, self._trained, self._side
            )
        if self._held is not None:
            found["against"] = look(Against(self._held, self._examples(batches), name))
        if self.lengths is not None:
            found["lengths"] = look_at_lengths(batches, self.speaker, *self.lengths)
        found["suppressed"] = look_at_suppressed(batches, self.model, self.processing)
        self.pieces |= {f"{what} {name}".strip(): of_set(piece, name) for what, piece in found.items()}
        if figures:
            self.restored(name, figures, self.steps_taken())
            self._set = self._set or name or "eval"
            if self._set == (name or "eval"):
                self.recorder.evaluated(figures, self.steps_taken())
            self.judge_course()
        return figures

    def led(self, names: Sequence[str]) -> None:
        """Figures of texts that the training computes of outputs behind the true tokens."""
        batches = self._seen_last
        if names and batches:
            with self.look():
                self.pieces["led"] = look_at_led(batches, self.speaker, names)

    # ── what is looked at ─────────────────────────────────────────────────────────────────────────────────────────────

    @guarded("the wiring")
    def look_at_first(self) -> None:
        """The wiring, once, on the first batches."""
        first, self._first = self._first, None
        if first is None or self.training is None or self._unseen(first):
            return
        if self.training.own == "compute_loss" and not self.training.compiled:
            self.passing.next_call(self.model, partial(self._look_at_call, first.batches))
        if self.training.own and not self.training.compiled:
            self.passing.next_outputs(self.model, self._look_at_aims)
        self._side = side_in(first.batches, self.speaker.pad_id)
        with self.look():
            wiring = wiring_of(self.model, first.batches, self.processing, self.training)
            self.pieces["wiring"] = look(wiring)
        self._broken = bool(wiring.broken)
        self.tell({})

    @guarded("what the decoder is fed")
    def _look_at_call(self, batches: list[Any], names: set[str]) -> None:
        """Whether a loss of the training's own leaves the model without labels, and its decoder without tokens."""
        network = CollatedNetwork(self.model)
        batch = as_one(batches, network.pad_id)
        if LABELS not in batch:
            return
        with self.look():
            unfed = why_unfed(network, batch, names, "compute_loss calls the model without the labels")
        self.pieces["call"] = look(Wiring(unfed=unfed))
        self.tell()

    @guarded("which labels the loss holds the outputs against")
    def _look_at_aims(self, logits: Any, gradient: Any) -> None:
        """Whether a loss of the training's own shifts the labels once more."""
        labels = as_tensors({LABELS: self._labels})[LABELS]
        if isinstance(labels, Tensor) and (aside := held_against(logits, gradient, labels)):
            self.pieces["aims"] = look(Wiring(aside=aside), codes="WIR007")
            self.tell()

    @guarded("what becomes of small updates")
    def _judge_rounding(self) -> None:
        """How many numbers in half precision the step has moved."""
        halves, self._halves = self._halves, None
        rates = [float(group.get("lr") or 0.0) for group in groups(self.optimizer)]
        if halves is not None:
            self._rounded = later(self._rounded, halves.after(max(rates, default=0.0)))
            self.pieces["rounding"] = look(Wiring(rounded=self._rounded), codes="WIR047")

    @guarded("the order of the batches")
    def _judge_order(self) -> None:
        """The rules over the order in which batches come, where more have passed."""
        if self.stream is not None and self.stream.due:
            self.pieces["order"] = look(self.stream.coming())

    @guarded("the training data")
    def look_at_pairs(self) -> None:
        """The rules over pairs, once, on the examples that have passed."""
        waited, self._pairs = self._pairs, None
        if waited is None or self._unseen(waited):
            return
        self._side = self._side or side_in(waited.batches, self.speaker.pad_id)
        with self.look():
            within = within_of(waited.batches, self.speaker)
            self.pieces["padding"] = look(Wiring(within=within), codes="WIR039")
            self._held = self._examples(waited.batches)
            pairs = pairs_of(self.model, waited.batches, self.processing, waited.forms, self._told)
            if pairs.ids is not None and are_sources(waited.batches, pad := self.speaker.pad_id):
                pairs = replace(pairs, ids=replace(pairs.ids, overwritten=in_data_set(self.data_set(), pad)))
            if pairs.ids is not None and _is_one(pairs.train):  # else nobody's rows are asked for
                removed = left_behind(self.data_set(), waited.batches)
                pairs = replace(pairs, ids=replace(pairs.ids, removed=removed))
            count = len(pairs.train)
            few = count < FEWEST
            missing = [absent(Pairs, f"{count} examples, at least {FEWEST} are needed")] if few else []
            self.pieces["data"] = Piece((), missing) if few else look(pairs)
        if not few:
            self.recorder.entropy(target_entropy(pairs.train))
        self.tell()

    def _examples(self, batches: Sequence[Mapping[str, Any]]) -> Held:
        """Sources and labels of some batches."""
        pad, found = self.speaker.pad_id, []
        for batch in batches:
            try:
                source, real, _ = parts(batch, pad)
            except RequestError:  # sources that only the model itself reads
                continue
            found.append(held_of(source, real, batch[LABELS]))
        return joined(found)

    @property
    def _at_once(self) -> bool:
        """Whether the device may be asked: the training waits for each loss, nobody has to, or it is long ago."""
        return self._waits or is_host(self.model.device) or len(self._steps.norms) >= LONG

    def _unseen(self, waited: First) -> bool:
        """Whether there is nothing to look at; says why, where that was not said already."""
        if waited.batches or self.told.knows(UNSEEN):
            return not waited.batches
        raise RequestError(self.unlabelled)

    @contextmanager
    def look(self) -> Iterator[None]:
        """Within: the model is called by a look, not by the training."""
        with self.passing.elsewhere(), super().look():
            yield


def _is_one(part: ExampleSet) -> bool:
    """Whether most of the sources of a set are one and the same text."""
    if part.dataset.dims:
        return False
    ((_, most),) = Counter(example.source for example in part.dataset).most_common(1)
    return 2 * most > len(part)
