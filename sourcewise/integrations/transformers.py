"""The doctor inside a `Seq2SeqTrainer`.

    from sourcewise.integrations.transformers import SourcewiseCallback

    trainer = Seq2SeqTrainer(...)
    trainer.add_callback(SourcewiseCallback(trainer))

Nothing is read, drawn or collated for it: it looks at the batches that the Trainer itself trains and evaluates on, as
they pass. Before the first step the wiring of the model is looked at, on the first of them; the data when enough of it
has passed; at each log the course of the training; at each evaluation source bits, how the network reads, and its
free-running outputs. Figures and findings go where the Trainer's own figures go, and each new finding is printed once.

Whatever goes wrong in a look becomes a line "not checked: why". No training ends, changes or is cut short for it.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, wraps
from typing import Any

import torch
from transformers import TrainerCallback

from sourcewise.diagnosis.answer import Diagnosis, Piece
from sourcewise.diagnosis.pairs import SAMPLE
from sourcewise.diagnosis.ranking import put_together
from sourcewise.diagnosis.rules.wiring.wir001_not_finite import NotFiniteValues
from sourcewise.diagnosis.whole import of_course
from sourcewise.diagnosis.wiring import EXAMPLES
from sourcewise.errors import RequestError
from sourcewise.integrations.collated import LABELS, CollatedNetwork
from sourcewise.integrations.fed import check_fed, other_loss, own_loss, taken_out
from sourcewise.integrations.finite import NotFinite, Steps, broken_moments, broken_weights, scales
from sourcewise.integrations.looks import broken_sources, look_at_data, look_at_network, look_at_wiring, said
from sourcewise.integrations.passing import First, Passing, Spread, as_tensors, joined
from sourcewise.integrations.recorder import Recorder
from sourcewise.integrations.telling import PREFIX, Told, of_set, set_name
from sourcewise.integrations.untouched import untouched
from sourcewise.integrations.wiring import Training

LONG = 200  # steps after which it is asked at any rate whether they were finite
HAND_OVER = "hand the trainer over: SourcewiseCallback(trainer)"


def _guarded(what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """For every entry of the callback: whatever goes wrong inside ends nobody's training (see `_guard`)."""

    def decorate(entry: Callable[..., None]) -> Callable[..., None]:
        @wraps(entry)
        def entered(self: SourcewiseCallback, *given: Any, **named: Any) -> None:
            with self._guard(what):
                entry(self, *given, **named)

        return entered

    return decorate


class SourcewiseCallback(TrainerCallback):
    """Logs source bits and findings of a `Seq2SeqTrainer`'s training into the Trainer's own logs.

    Keys are `sourcewise_source_bits` with `_low` and `_high` (95 %), `sourcewise_unique_pct` (distinct outputs),
    `sourcewise_errors`, `sourcewise_warnings`, and a key a rule: `sourcewise_SRC001` is 1 where it is found, 0 where it
    no longer is. The texts are in `trainer.state.log_history` under `sourcewise_findings`, and in `diagnosis`; what
    could not be looked at, and why, under `sourcewise_not_checked`, and in `diagnosis.not_checked`.

    Given the `trainer` (hand it over by `trainer.add_callback`), figures reach TensorBoard, W&B and the like, and
    batches are seen with their labels whatever the loss; without it figures are in `trainer.state.log_history` only,
    and batches are what the model is called with. `examples` of the evaluation set are looked at; `outputs` may be
    switched off, since generating takes longest; `wiring` too, since it holds a copy of the weights for some seconds.
    """

    def __init__(self, trainer: Any = None, *, examples: int = 96, outputs: bool = True, wiring: bool = True) -> None:
        if examples < 2:
            raise RequestError(f"SourcewiseCallback: examples is {examples}; source bits take 2 or more")
        self.trainer, self.examples, self.outputs, self.wiring = trainer, examples, outputs, wiring
        self.recorder = Recorder()
        self.pieces: dict[str, Piece] = {}  # by what was looked at, the latest look
        self.seconds = 0.0
        self._told = Told(trainer)
        self._steps, self._labels = Steps(), None  # the labels of the batch whose loss is still to come
        self._broken = False  # weights that were not finite before the first step
        self._first: First | None = None
        self._pairs: First | None = None
        self._evaluated = Spread(examples)
        self._set = ""  # the evaluation set of the course
        self._args: Any = None
        self._state: Any = None
        self._given: dict[str, Any] = {}  # with model, optimizer and processing_class, of the latest event
        self._passing = Passing(self._passed, self._lost)
        if trainer is not None:
            self._passing.of_trainer(trainer)

    @property
    def diagnosis(self) -> Diagnosis:
        """What is known so far: findings ranked, the cause first, and what could not be checked."""
        return put_together([*self.pieces.values(), Piece((), self._told.problems)], self.seconds)

    # ── what the Trainer calls ────────────────────────────────────────────────────────────────────────────────────────

    @_guarded("everything")
    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """A training begins; nothing of it is read."""
        self._first = self._pairs = None
        self._steps, self._broken = Steps(), False
        if not self._looks(args, state, given):
            return
        self.recorder = Recorder(
            pretrained=not _fresh(self._model), other_loss=other_loss(self.trainer, args.label_smoothing_factor)
        )
        self.recorder.started(state.max_steps)
        if self.trainer is None:
            if args.torch_compile:
                raise RequestError(f"the model is compiled; {HAND_OVER}")
            self._passing.of_model(self._model)
        self._first, self._pairs = First(EXAMPLES) if self.wiring else None, First(SAMPLE, slim=True)
        if not self.wiring:
            self._tell({})

    @_guarded("whether gradients are finite")
    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Gradients of each step, whether they are finite; their norms at the step that will be logged."""
        if not self._looks(args, state, given) or self._is_lost:
            return
        self._steps.gradients(state.global_step + 1, self._model)
        if not scales(given["optimizer"]) and self._at_once:
            self._judge_finite()
        if (state.global_step + 1) % max(1, state.logging_steps) == 0:
            self.recorder.before_step(self._model)

    @_guarded("the updates of the weights")
    def on_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Its updates."""
        if not self._looks(args, state, given) or self._is_lost:
            return
        if scales(given["optimizer"]):
            if getattr(given["optimizer"], "step_was_skipped", False):
                self._steps.forget(state.global_step + 1)  # what overflowed in fp16 reached no weight
            if self._at_once:
                self._judge_finite()
        if (state.global_step + 1) % max(1, state.logging_steps) == 0:
            self.recorder.after_step(self._model, given["optimizer"])

    @_guarded("the course of the training")
    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **given: Any) -> None:
        """The course of the training, at each of its lines."""
        if not logs or "loss" not in logs or not self._looks(args, state, given) or self._is_lost:
            return
        norm, loss = float(logs.get("grad_norm") or 0.0), float(logs["loss"]) if self.trainer is None else None
        if not math.isfinite(norm + (loss or 0.0)) and not getattr(given["optimizer"], "step_was_skipped", False):
            self._steps.logged(state.global_step, loss, norm)
        self._judge_finite()
        self.recorder.logged(logs, state.global_step, args.max_grad_norm or 0.0)
        self._judge_course()
        self._tell()

    @_guarded("the training data")
    def on_epoch_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """All data has passed: from here on it comes again."""
        if self._looks(args, state, given):
            self._look_at_pairs()

    @_guarded("the end of the training")
    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """What was put off, and whether the weights are finite."""
        self._passing.stop()
        self.recorder.under_way = False
        if not self._looks(args, state, given):
            return
        self._look_at_first()
        self._look_at_pairs()
        self._judge_finite(weights=True)
        self._judge_course()
        self._tell()

    @_guarded("the evaluation")
    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **given: Any) -> None:
        """Source bits, how the network reads, and its outputs; the figures are also in what `evaluate` returns."""
        batches, name = self._evaluated.batches(), set_name(metrics)
        self._evaluated.clear()
        if self._looks(args, state, given):
            with self._guard(f"the evaluation{f' of {name}' if name else ''}"):
                self._look_at_evaluation(batches, name, metrics)

    @_guarded("the prediction")
    def on_predict(self, args: Any, state: Any, control: Any, metrics: Any = None, **given: Any) -> None:
        """Its batches are no evaluation's."""
        self._evaluated.clear()

    # ── what passes ───────────────────────────────────────────────────────────────────────────────────────────────────

    @_guarded("the batches of the training")
    def _passed(self, batch: Any, training: bool) -> None:
        """A batch as the model is to be given it."""
        if not self._active:
            return
        if not training:
            self._evaluated.add(as_tensors(batch))
            return
        self._labels = batch.get(LABELS) if isinstance(batch, Mapping) else None
        for waiting, look in ((self._first, self._look_at_first), (self._pairs, self._look_at_pairs)):
            if waiting is not None:
                waiting.add(as_tensors(batch))
                if waiting.full:
                    look()

    @_guarded("whether losses are finite")
    def _lost(self, loss: Any) -> None:
        """The loss of the batch that passed last."""
        labels, self._labels = self._labels, None
        if self._active and self._state is not None and not self._is_lost:
            self._steps.loss(self._state.global_step + 1, loss, labels)

    # ── what is looked at ─────────────────────────────────────────────────────────────────────────────────────────────

    @_guarded("the wiring")
    def _look_at_first(self) -> None:
        """The wiring, once, on the first batches."""
        first, self._first = self._first, None
        if first is None or self._unseen(first):
            return
        args, model, own = self._args, self._model, own_loss(self.trainer)
        known = (self._state.max_steps, args.max_grad_norm or 0.0, _fresh(model), args.label_smoothing_factor)
        training = Training(self._given.get("optimizer"), *known, self._given.get("lr_scheduler"))
        taken = taken_out(self.trainer, args.label_smoothing_factor)
        if own == "compute_loss" and not args.torch_compile:
            self._passing.next_call(model, partial(self._look_at_call, first.batches))
        with self._look():
            found = look_at_wiring(model, first.batches, self._processing, training, taken=taken, own=own)
        self.pieces["wiring"] = found
        self._broken = any(finding.code == NotFiniteValues.code for finding in found.findings) and bool(
            broken_weights(model) or broken_sources(first.batches)
        )
        self._tell({})

    @_guarded("what the decoder is fed")
    def _look_at_call(self, batches: list[Any], names: set[str]) -> None:
        """Whether a loss of the training's own leaves the model without labels, and its decoder without tokens."""
        network = CollatedNetwork(self._model)
        batch = joined(batches, network.pad_id)
        if LABELS not in batch:
            return
        with self._look():
            found = check_fed(network, batch, names, "compute_loss calls the model without the labels")
        self.pieces["call"] = Piece(found)
        self._tell()

    @_guarded("the training data")
    def _look_at_pairs(self) -> None:
        """The rules over pairs, once, on the examples that have passed."""
        pairs, self._pairs = self._pairs, None
        if pairs is None or self._unseen(pairs):
            return
        with self._look():
            self.pieces["data"], entropy = look_at_data(self._model, pairs.batches, self._processing)
        if entropy is not None:
            self.recorder.entropy(entropy)
        self._tell()

    def _look_at_evaluation(self, batches: list[Any], name: str, metrics: Any) -> None:
        """The network, on the examples of an evaluation that were kept."""
        self._judge_finite(weights=True)
        if self._is_lost:
            raise RequestError("the weights are not finite numbers")
        with self._look():
            found, figures = look_at_network(self._model, batches, self._processing, self.outputs)
        self.pieces |= {f"{what} {name}".strip(): of_set(piece, name) for what, piece in found.items()}
        if not figures:
            self._tell()
            return
        self._set = self._set or name or "eval"
        if self._set == (name or "eval"):
            self.recorder.evaluated(figures, self._state.global_step)
        self._judge_course()
        low, high = figures["source_bits_ci95"]
        shown = {"source_bits": figures["source_bits"], "source_bits_low": low, "source_bits_high": high}
        shown |= {key: figures[key] for key in ("unique_pct",) if key in figures}
        prefix = f"{PREFIX}{f'{name}_' if name else ''}"
        numbers = {f"{prefix}{key}": value for key, value in shown.items() if value is not None}
        self._tell(numbers)
        if metrics is not None:
            metrics |= {f"eval_{key}": value for key, value in numbers.items()}

    def _judge_finite(self, *, weights: bool = False) -> None:
        """Whether losses and gradients since the last time are finite; the weights where these are not, or if asked."""
        if self._is_lost:
            return
        found = self._steps.asked()
        if weights and not found:
            found = [NotFinite(self._state.global_step, None, None)]
        for each in found:
            broken, gradients = ("", "") if each.harmless else (broken_weights(self._model), "")
            if not broken and not each.harmless:
                gradients = broken_weights(self._model, gradients=True)
            moments = "" if broken or not weights else broken_moments(self._model, self._given.get("optimizer"))
            if broken or moments or each.loss is not None or each.norm is not None:
                self.recorder.not_finite(each, broken, gradients, moments)
                self._judge_course()
                self._tell()

    def _judge_course(self) -> None:
        course = self.recorder.course
        piece = of_course(course)
        if not course.train and not piece.findings:
            piece = Piece((), ["the course of the training: the Trainer has logged no loss of it so far"])
        elif course.other_loss:
            why = f"the training loss in the course (TRN002 to TRN005, TRN010, TRN012): {course.other_loss}"
            piece = replace(piece, not_checked=[*piece.not_checked, f"{why}, so what is logged is no cross-entropy"])
        self.pieces["course"] = piece

    def _tell(self, figures: Mapping[str, float] | None = None) -> None:
        with self._guard("the Trainer's own log"):
            self._told.findings(self._state, self.diagnosis.findings, figures)

    # ── where it looks from ───────────────────────────────────────────────────────────────────────────────────────────

    def _looks(self, args: Any, state: Any, given: dict[str, Any]) -> bool:
        """One process of several looks, and none where each holds but a part of the model."""
        self._args, self._state, self._given = args, state, given
        if not state.is_world_process_zero:
            return False
        why = "each process holds but a part of the model" if args.deepspeed or args.fsdp else ""
        if not getattr(getattr(self._model, "config", None), "is_encoder_decoder", False):
            why = f"{type(self._model).__name__} is no encoder-decoder model"
        if why:
            self._told.problem(self._state, "everything", why)
        return not why

    @property
    def _active(self) -> bool:
        """Whether batches that pass are this callback's to see."""
        if self.trainer is None:
            return True
        return self.trainer.state.is_world_process_zero and self in self.trainer.callback_handler.callbacks

    @property
    def _model(self) -> Any:
        """The model inside what distributes or compiles it."""
        model = self._given.get("model")
        while isinstance(model, torch.nn.Module) and ("_orig_mod" in model._modules or _distributes(model)):
            model = model._modules.get("_orig_mod") or model.module
        return model

    @property
    def _processing(self) -> Any:
        return self._given.get("processing_class")

    @property
    def _is_lost(self) -> bool:
        """Whether the weights are known not to be finite: nothing that comes of them tells more."""
        return self._broken or self.recorder.lost

    @property
    def _at_once(self) -> bool:
        """Whether the device may be asked: the Trainer itself waits for each loss, nobody has to, or it is long ago."""
        waits = bool(self._args.logging_nan_inf_filter) or self._model.device.type == "cpu"
        return waits or len(self._steps.norms) >= LONG

    def _unseen(self, waited: First) -> bool:
        """Whether there is nothing to look at; says why, where that was not said already."""
        if waited.batches or self._told.knows("the batches of the training"):
            return not waited.batches
        if self.trainer is None:
            raise RequestError(f"the model was called without labels; {HAND_OVER}")
        raise RequestError("no batch was seen: the trainer's training_step does not call its _prepare_inputs")

    @contextmanager
    def _look(self) -> Iterator[None]:
        """Within: the model is looked at; afterwards it, and all that draws at random, is as before."""
        start = time.perf_counter()
        try:
            with self._passing.elsewhere(), untouched(self._model):
                yield
        finally:
            self.seconds += time.perf_counter() - start

    @contextmanager
    def _guard(self, what: str) -> Iterator[None]:
        """Within: an error becomes a line "not checked: why", once a kind. An interrupt is none of ours."""
        try:
            yield
        except Exception as problem:
            with contextlib.suppress(Exception):
                self._told.problem(self._state, what, said(problem))


def _distributes(model: Any) -> bool:
    return isinstance(model, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel))


def _fresh(model: Any) -> bool:
    """Whether a model was made from a configuration, not loaded."""
    return not getattr(model.config, "_name_or_path", "")
