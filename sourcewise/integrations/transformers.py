"""The doctor inside a `Seq2SeqTrainer`.

    from sourcewise.integrations.transformers import SourcewiseCallback

    trainer = Seq2SeqTrainer(...)
    trainer.add_callback(SourcewiseCallback(trainer))

Figures and findings go where the Trainer's own figures go, and each new finding is printed once. See `doctor`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

import torch
from transformers import TrainerCallback

from sourcewise.diagnosis.answer import Diagnosis
from sourcewise.diagnosis.keeping import Keeping
from sourcewise.errors import RequestError
from sourcewise.integrations.coming import Stream
from sourcewise.integrations.doctor import guarded, refuse_few
from sourcewise.integrations.fed import other_loss, own_loss, taken_out
from sourcewise.integrations.huggingface import HuggingFaceDoctor
from sourcewise.integrations.own_modules import OwnModules, is_own
from sourcewise.integrations.subjects import Training
from sourcewise.integrations.telling import PREFIX, Told, set_name
from sourcewise.tracking import Tracker, Trackers
from sourcewise.tracking.kinds import TensorBoard, active

TEXT_FIGURES = frozenset({"wer", "cer", "ter", "meteor", "cider", "spice", "comet", "bleurt", "bertscore", "em"})
USUAL = 20  # tokens that transformers' generate() gives where nobody says how many
HAND_OVER = "hand the trainer over: SourcewiseCallback(trainer)"


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
        refuse_few(examples, "SourcewiseCallback")
        self.trainer, self.told = trainer, Told(trainer)
        self.doctor = HuggingFaceDoctor(self.told, examples, outputs=outputs, wiring=wiring)
        self.doctor.unlabelled = f"the model was called without labels; {HAND_OVER}"
        if trainer is not None:
            self.doctor.active = self._in_use
            self.doctor.data_set = lambda: self.trainer.train_dataset
            self.doctor.unlabelled = "no batch was seen: the trainer's training_step does not call its _prepare_inputs"
            self.doctor.passing.of_trainer(trainer)

    @property
    def diagnosis(self) -> Diagnosis:
        """What is known so far: findings ranked, the cause first, and what could not be checked."""
        return self.doctor.diagnosis

    @guarded("everything")
    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """A training begins; nothing of it is read."""
        self.doctor.stop()
        looks = self._looks(args, state, given)
        self._look_at_own(args, state, given, data=not looks)
        if not looks:
            return
        if self.trainer is None:
            if args.torch_compile:
                raise RequestError(f"the model is compiled; {HAND_OVER}")
            self.doctor.passing.of_model(self.doctor.model)
        self.told.trackers = Trackers(_alerted(self.trainer, args.report_to))
        smoothing = args.label_smoothing_factor
        training = Training(
            given.get("optimizer"),
            state.max_steps,
            args.max_grad_norm or 0.0,
            not getattr(self.doctor.model.config, "_name_or_path", ""),  # loaded, where it has one
            smoothing,
            given.get("lr_scheduler"),
            own_loss(self.trainer),
            taken_out(self.trainer, smoothing),
            compiled=args.torch_compile,
            fp16=bool(args.fp16),
        )
        self.doctor.lengths = _longest(args, self.doctor.model)
        waits = bool(args.logging_nan_inf_filter)
        self.doctor.begin(training, other_loss(self.trainer, smoothing), waits=waits)
        self.doctor.stream = Stream(grouped=_is_grouped(args))
        self.doctor.keeps(_keeping(args, self.trainer))

    def _look_at_own(self, args: Any, state: Any, given: dict[str, Any], *, data: bool) -> None:
        """At modules of somebody's own the doctor for loops looks; at the `data`, too, where nobody else can.

        Without the trainer nothing passes of which it could be told.
        """
        self.doctor.own, model = None, self.doctor.model
        whole = state.is_world_process_zero and not (args.deepspeed or args.fsdp or args.torch_compile)
        if whole and self.trainer is not None and self.doctor.wiring and is_own(model):
            self.doctor.own = OwnModules(self.doctor, model, given.get("optimizer"), steps=state.max_steps, data=data)

    @guarded("the wiring")
    def on_substep_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """One of the batches of a step."""
        if self.doctor.own is not None:
            self.doctor.own.step()

    @guarded("the wiring")
    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """A step."""
        if self.doctor.own is not None:
            self.doctor.own.step()

    @guarded("whether gradients are finite")
    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Gradients of each step."""
        if self._looks(args, state, given):
            self.doctor.before_step(logged=(state.global_step + 1) % max(1, state.logging_steps) == 0)

    @guarded("the updates of the weights")
    def on_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Its updates."""
        if self._looks(args, state, given):
            self.doctor.after_step(logged=(state.global_step + 1) % max(1, state.logging_steps) == 0)

    @guarded("the course of the training")
    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **given: Any) -> None:
        """The course of the training, at each of its lines."""
        if logs and "loss" in logs and self._looks(args, state, given):
            self.doctor.logged(logs, own=self.trainer is None)

    @guarded("the training data")
    def on_epoch_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """All data has passed: from here on it comes again."""
        if self._looks(args, state, given):
            self.doctor.look_at_pairs()

    @guarded("the end of the training")
    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """What was put off, and whether the weights are finite."""
        self.doctor.passing.stop()
        self.doctor.recorder.under_way = False
        if self._looks(args, state, given):
            self.doctor.end()

    @guarded("the evaluation")
    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **given: Any) -> None:
        """Source bits, how the network reads, and its outputs; the figures are also in what `evaluate` returns."""
        name = set_name(metrics)
        try:
            if self._looks(args, state, given) or self.doctor.own is not None:
                with self.doctor.guard(f"the evaluation{f' of {name}' if name else ''}"):
                    self._evaluated(name, metrics)
        finally:
            self.doctor.kept.clear()

    @guarded("the prediction")
    def on_predict(self, args: Any, state: Any, control: Any, metrics: Any = None, **given: Any) -> None:
        """Its batches are no evaluation's."""
        self.doctor.kept.clear()

    def _evaluated(self, name: str, metrics: Any) -> None:
        """Log the figures of an evaluation."""
        figures = self.doctor.evaluated(name)
        self._judge_led(metrics)
        low, high = figures.get("source_bits_ci95") or (None, None)
        shown = {"source_bits": figures.get("source_bits"), "source_bits_low": low, "source_bits_high": high}
        shown |= {"unique_pct": figures.get("unique_pct")}
        prefix = f"{PREFIX}{f'{name}_' if name else ''}"
        numbers = {f"{prefix}{key}": value for key, value in shown.items() if value is not None}
        self.doctor.tell(numbers if figures else None)
        if metrics is not None:
            metrics |= {f"eval_{key}": value for key, value in numbers.items()}

    def _judge_led(self, metrics: Any) -> None:
        """Whether figures of texts are made of what a decoder says that is told the references."""
        args, metric = getattr(self.trainer, "args", None), getattr(self.trainer, "compute_metrics", None)
        if metric is None or getattr(args, "predict_with_generate", False) or own_evaluation(self.trainer):
            return
        names = sorted(name.removeprefix("eval_") for name in metrics or () if of_texts(str(name)))
        self.doctor.led(names)

    def _looks(self, args: Any, state: Any, given: dict[str, Any]) -> bool:
        """One process of several looks, and none where each holds but a part of the model."""
        doctor, model = self.doctor, _inner(given.get("model"))
        doctor.model, doctor.optimizer, doctor.processing = model, given.get("optimizer"), given.get("processing_class")
        self.told.state, doctor.steps_taken = state, lambda: int(state.global_step)
        if not state.is_world_process_zero:
            return False
        why = "each process holds but a part of the model" if args.deepspeed or args.fsdp else ""
        if not getattr(getattr(model, "config", None), "is_encoder_decoder", False):
            why = f"{type(model).__name__} is no encoder-decoder model"
        if why and (self.trainer is None or not is_own(model)):
            self.told.problem("everything", why)
        return not why

    def _in_use(self) -> bool:
        """Whether batches that pass are this callback's to see."""
        return bool(self.trainer.state.is_world_process_zero) and self in self.trainer.callback_handler.callbacks


def _alerted(trainer: Any, names: Any) -> Iterator[Tracker]:
    """The trackers that a Trainer reports to, for alerts of findings; its figures reach them by its own log."""
    for each in trainer.callback_handler.callbacks if trainer is not None else ():
        if getattr(each, "tb_writer", None) is not None:
            yield TensorBoard(each.tb_writer)
    for name in ("wandb", "mlflow", "trackio") if trainer is not None else ():
        if name in (names or ()) and name in sys.modules and (found := active(name)) is not None:
            yield found


def _is_grouped(args: Any) -> bool:
    """Whether the Trainer's own sampler puts examples of one length together, the longest first."""
    return bool(getattr(args, "group_by_length", False)) or "group" in str(getattr(args, "train_sampling_strategy", ""))


def _keeping(args: Any, trainer: Any) -> Keeping:
    """By which figure a Trainer picks a checkpoint, and what for; nothing where it does not."""
    called = [type(each).__name__ for each in trainer.callback_handler.callbacks] if trainer is not None else []
    uses = {
        "load_best_model_at_end": args.load_best_model_at_end,
        "EarlyStoppingCallback": "EarlyStoppingCallback" in called,
        "save_strategy best": str(getattr(args.save_strategy, "value", args.save_strategy)) == "best",
    }
    used = next((name for name, does in uses.items() if does), "")
    return Keeping(args.metric_for_best_model or "", bool(args.greater_is_better), used)


def _longest(args: Any, model: Any) -> tuple[int, str] | None:
    """The most tokens that the Trainer's own generation gives, and what says so; None where it does not generate."""
    if not getattr(args, "predict_with_generate", False):
        return None
    config = getattr(args, "generation_config", None) or getattr(model, "generation_config", None)
    given = getattr(args, "generation_max_length", None)
    new = getattr(config, "max_new_tokens", None)
    if given is None and isinstance(new, int):
        return new, f"max_new_tokens of the generation_config is {new}"
    known = given or getattr(config, "max_length", None)
    if isinstance(known, int):
        where = "generation_max_length" if given else "max_length of the generation_config"
        return known - 1, f"{where} is {known}, the start token among them"
    return USUAL - 1, f"generation_max_length is not set, and generation stops after its default max_length of {USUAL}"


def own_evaluation(trainer: Any) -> bool:
    """Whether a Trainer makes its predictions otherwise than transformers' own."""
    from transformers import Seq2SeqTrainer, Trainer

    own = getattr(type(trainer), "prediction_step", None)
    loop = getattr(type(trainer), "evaluation_loop", None)
    known = (Trainer.prediction_step, Seq2SeqTrainer.prediction_step)
    return own not in known or loop is not Trainer.evaluation_loop or "prediction_step" in vars(trainer)


def of_texts(name: str) -> bool:
    """Whether the name of a figure says that it is one of whole texts."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    return any(word in TEXT_FIGURES or word.startswith(("rouge", "bleu", "sacrebleu", "chrf")) for word in words)


def _inner(model: Any) -> Any:
    """The model inside what distributes or compiles it."""
    distributes = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    while isinstance(model, torch.nn.Module) and ("_orig_mod" in model._modules or isinstance(model, distributes)):
        model = model._modules.get("_orig_mod") or model.module
    return model
