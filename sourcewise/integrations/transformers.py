"""The doctor inside a `Seq2SeqTrainer`.

    from sourcewise.integrations.transformers import SourcewiseCallback

    trainer = Seq2SeqTrainer(...)
    trainer.add_callback(SourcewiseCallback(trainer))

Before the first step the wiring of the model is looked at, on a batch as the trainer's collator makes it; at each log
the course of the training; at each evaluation source bits, how the network reads, and its free-running outputs. Figures
and findings go where the Trainer's own figures go, and each new finding is printed once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback

from sourcewise.diagnosis.diagnose import Diagnosis, Piece, put_together
from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.whole import of_course
from sourcewise.errors import RequestError
from sourcewise.evaluation.one_batch import at_rest
from sourcewise.integrations.collated import collate_some
from sourcewise.integrations.looks import look_at_data, look_at_network, look_at_wiring
from sourcewise.integrations.recorder import Recorder
from sourcewise.integrations.wiring import Training

PREFIX = "sourcewise_"
BATCH = 16  # examples of a batch, at least


class SourcewiseCallback(TrainerCallback):
    """Logs source bits and findings of a `Seq2SeqTrainer`'s training into the Trainer's own logs.

    Keys are `sourcewise_source_bits` with `_low` and `_high` (95 %), `sourcewise_unique_pct` (distinct outputs),
    `sourcewise_errors`, `sourcewise_warnings`, and a key a rule: `sourcewise_SRC001` is 1 where it is found, 0 where it
    no longer is. The texts are in `trainer.state.log_history` under `sourcewise_findings`, and in `diagnosis`.

    Given the `trainer` (hand it over by `trainer.add_callback`), figures reach TensorBoard, W&B and the like; without
    it they are in `trainer.state.log_history` only. `examples` of the evaluation set are looked at; `outputs` may be
    switched off, since generating takes longest; `wiring` too, since it holds a copy of the weights for some seconds.
    """

    def __init__(self, trainer: Any = None, *, examples: int = 96, outputs: bool = True, wiring: bool = True) -> None:
        if examples < 2:
            raise RequestError(f"SourcewiseCallback: examples is {examples}; source bits take 2 or more")
        self.trainer, self.examples, self.outputs, self.wiring = trainer, examples, outputs, wiring
        self.recorder = Recorder()
        self.pieces: dict[str, Piece] = {}  # by what was looked at, the latest look
        self.seconds = 0.0
        self._told: set[tuple[str, str]] = set()
        self._logged: set[str] = set()

    @property
    def diagnosis(self) -> Diagnosis:
        """What is known so far: findings ranked, the cause first, and what could not be checked."""
        return put_together(list(self.pieces.values()), self.seconds)

    # ── what the Trainer calls ────────────────────────────────────────────────────────────────────────────────────────

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Look at the wiring, on a batch of the training data. Raises RequestError for a decoder-only model."""
        model = _own(given.get("model"))
        if not getattr(getattr(model, "config", None), "is_encoder_decoder", False):
            raise RequestError(f"SourcewiseCallback: {type(model).__name__} is no encoder-decoder model")
        if not self._looks(args, state):
            return
        self.recorder = Recorder(pretrained=not _fresh(model))
        loader, processing, entropy = given.get("train_dataloader"), given.get("processing_class"), None
        if loader is not None:
            known = (state.max_steps, args.max_grad_norm or 0.0, _fresh(model), args.label_smoothing_factor)
            training = Training(given.get("optimizer"), *known)
            with self._timed(), _as_it_was(model):
                if self.wiring:
                    self.pieces["wiring"] = look_at_wiring(model, loader, processing, training)
                self.pieces["data"], entropy = look_at_data(model, loader, processing)
        self.recorder.started(state.max_steps, entropy)
        self._tell(state, {})

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Gradients of the step that will be logged."""
        if self._looks(args, state) and (state.global_step + 1) % max(1, state.logging_steps) == 0:
            self.recorder.before_step(_own(given["model"]))

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Its updates."""
        if self._looks(args, state) and (state.global_step + 1) % max(1, state.logging_steps) == 0:
            self.recorder.after_step(_own(given["model"]), given["optimizer"])

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **given: Any) -> None:
        """The course of the training, at each of its lines."""
        if not logs or "loss" not in logs or args.label_smoothing_factor or not self._looks(args, state):
            return  # a smoothed loss is no cross-entropy
        self.recorder.logged(logs, state.global_step, args.max_grad_norm or 0.0)
        self._judge_course()
        self._tell(state, None)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **given: Any) -> None:
        """Source bits, how the network reads, and its outputs; the figures are also in what `evaluate` returns."""
        loader = given.get("eval_dataloader")
        if loader is None or not self._looks(args, state):
            return
        model = _own(given["model"])
        with self._timed(), _as_it_was(model):
            batches = collate_some(loader, self.examples, max(BATCH, args.per_device_eval_batch_size))
            try:
                found, figures = look_at_network(model, batches, given.get("processing_class"), self.outputs)
            except RequestError as problem:  # nobody's training should end for it
                self.pieces["outputs"] = Piece((), [f"the evaluation at step {state.global_step}: {problem}"])
                return
        self.pieces |= found
        self.recorder.evaluated(figures, state.global_step)
        self._judge_course()
        low, high = figures["source_bits_ci95"]
        shown = {"source_bits": figures["source_bits"], "source_bits_low": low, "source_bits_high": high}
        shown |= {name: figures[name] for name in ("unique_pct",) if name in figures}
        name = _set_name(metrics)
        numbers = {f"{PREFIX}{name}{key}": value for key, value in shown.items() if value is not None}
        self._tell(state, numbers)
        if metrics is not None:
            metrics |= {f"eval_{key}": value for key, value in numbers.items()}

    # ── what becomes of it ────────────────────────────────────────────────────────────────────────────────────────────

    def _looks(self, args: Any, state: Any) -> bool:
        """One process of several looks, and none where each holds but a part of the model."""
        if args.deepspeed or args.fsdp:
            self.pieces["wiring"] = Piece((), ["everything: each process holds but a part of the model"])
            return False
        return bool(state.is_world_process_zero)

    def _judge_course(self) -> None:
        self.pieces["course"] = of_course(self.recorder.course)

    def _tell(self, state: Any, figures: Mapping[str, float] | None) -> None:
        """Log figures and findings, and print those that are new; without figures only if some are new."""
        found = self.diagnosis.findings
        new = [finding for finding in found if (finding.code, finding.level) not in self._told]
        if figures is None and not new:
            return
        numbers: dict[str, Any] = dict(figures or {})
        for level in ("error", "warning"):
            numbers[f"{PREFIX}{level}s"] = sum(finding.level == level for finding in found)
        codes = {finding.code for finding in found if finding.level != "note"}
        numbers |= {f"{PREFIX}{code}": int(code in codes) for code in sorted(codes | self._logged)}
        self._logged |= codes
        if self.trainer is not None:
            self.trainer.log(numbers)
        else:
            state.log_history.append({**numbers, "step": state.global_step})
        if new:
            texts = [finding.to_dict() for finding in found]
            state.log_history.append({f"{PREFIX}findings": texts, "step": state.global_step})
        for finding in new:
            self._told.add((finding.code, finding.level))
            print(_said(finding, state.global_step), file=sys.stderr)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - start


def _said(finding: Finding, step: int) -> str:
    cure = finding.cure.splitlines()[0].rstrip(":")
    head = f"sourcewise: step {step}: {finding.level} {finding.code} {finding.name}: {finding.evidence}"
    return f"{head}\n  {cure} (sourcewise explain {finding.code})"


def _set_name(metrics: Mapping[str, Any] | None) -> str:
    """Which of several evaluation sets it is, as `NAME_`: their figures are called eval_NAME_loss."""
    loss = next((key for key in metrics or () if key.endswith("_loss")), "eval_loss")
    name = loss.removesuffix("_loss").removeprefix("eval").strip("_")
    return f"{name}_" if name else ""


def _own(model: Any) -> Any:
    """The model inside what distributes it."""
    return getattr(model, "module", model)


def _fresh(model: Any) -> bool:
    """Whether a model was made from a configuration, not loaded."""
    return not getattr(model.config, "_name_or_path", "")


@contextmanager
def _as_it_was(model: torch.nn.Module) -> Iterator[None]:
    """Within: no dropout; afterwards modes and random states are as before."""
    with torch.random.fork_rng(), at_rest(model):
        yield
