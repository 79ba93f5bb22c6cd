"""Hugging Face's Trainer in a script: the doctor's callback is put in, and ends the training after the steps wanted."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sourcewise.integrations.doctor import guarded
from sourcewise.integrations.passing import size_of
from sourcewise.integrations.transformers import SourcewiseCallback
from sourcewise.tracking import Trackers

if TYPE_CHECKING:
    from sourcewise.integrations.script.report import Report

OFTEN = 10  # steps, from one that is looked at to the next
AT_FIRST = (1, 2, 5)
EXAMPLES = 96


class Within(SourcewiseCallback):
    """The callback in somebody's script: it looks as often as the doctor of a loop, however seldom the Trainer logs."""

    def __init__(self, trainer: Any, report: Report) -> None:
        super().__init__(trainer, examples=EXAMPLES)
        self.told.trainer = None  # the script's logs and trackers hold what is its own
        self.report, self.losses, self.course = report, [], []  # type: ignore[var-annotated]
        self.figures: dict[str, Any] = {}
        self.began = self.step = 0
        self.evaluations = 0
        lost = self.doctor.passing.lost

        def seen(loss: Any) -> None:
            if isinstance(loss, Tensor):
                self.losses.append(loss.detach())
            lost(loss)

        self.doctor.passing.lost = seen

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """As the callback; it may begin at a later step."""
        self.began = int(state.global_step)
        super().on_train_begin(args, state, control, **given)
        self.told.trackers = Trackers()

    @guarded("whether gradients are finite")
    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Gradients of each step."""
        if self._looks(args, state, given):
            self.doctor.before_step(logged=self._due(state.global_step + 1))

    @guarded("the updates of the weights")
    def on_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Its updates."""
        if self._looks(args, state, given):
            self.doctor.after_step(logged=self._due(state.global_step + 1))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **given: Any) -> None:
        """The course is taken from the steps themselves."""

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """A line of the course, and the end after the steps wanted."""
        self.step = int(state.global_step)
        if self._due(self.step):
            self._course(args, state, control, **given)
        if self.report.steps and self.step - self.began >= self.report.steps:
            self.report.enough()

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **given: Any) -> None:
        """As the callback; there was an evaluation."""
        self.evaluations += 1
        super().on_evaluate(args, state, control, metrics, **given)

    def _evaluated(self, name: str, metrics: Any) -> None:
        """Figures are the report's; the script's own are as they were."""
        self.figures = self.doctor.evaluated(name)
        self.doctor.tell({})

    def _due(self, step: int) -> bool:
        return step - self.began in AT_FIRST or step % OFTEN == 0

    @guarded("the course of the training")
    def _course(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if not self.losses or not self._looks(args, state, given):
            return
        losses, self.losses = [float(each) for each in self.losses], []
        mean = sum(losses) / len(losses) * max(1, int(args.gradient_accumulation_steps))
        norm = math.sqrt(sum(each**2 for each in self.doctor.recorder._norms.values()))
        schedule = given.get("lr_scheduler")
        rate = None if schedule is None else schedule.get_last_lr()[0]
        self.course.append(mean)
        self.doctor.logged({"loss": mean, "grad_norm": norm or None, "learning_rate": rate}, own=False)

    @guarded("an evaluation")
    def look_at_the_end(self) -> None:
        """Some examples of the evaluation set, or where there is none of the training set, unless the script did so."""
        if self.evaluations or self.doctor.is_lost or self.doctor.model is None:
            return
        trainer, seen = self.trainer, 0
        several = trainer.eval_dataset
        one = next(iter(several.values())) if isinstance(several, dict) else several
        self.doctor.kept.clear()
        self.doctor.outputs = self.step >= trainer.state.max_steps  # too early to judge what it says, where it goes on
        for batch in trainer.get_train_dataloader() if one is None else trainer.get_eval_dataloader(one):
            trainer._prepare_inputs(batch)  # where it is seen
            seen += max(1, size_of(batch))
            if seen >= EXAMPLES:
                break
        self._evaluated("", None)


def watch(kind: Any, report: Report) -> None:
    """From now on each training of this class of Trainer has the doctor in."""
    train = kind.train

    @functools.wraps(train)
    def watched(trainer: Any, *given: Any, **named: Any) -> Any:
        if not any(isinstance(each, Within) for each in trainer.callback_handler.callbacks):
            within = Within(trainer, report)
            report.trainers.append(within)
            trainer.add_callback(within)
        with report.elsewhere():
            return train(trainer, *given, **named)

    kind.train = watched


def answer_of(callbacks: list[Within]) -> dict[str, Any]:
    """What was seen of the last training that a Trainer made."""
    last = next((each for each in reversed(callbacks) if each.step > each.began), callbacks[-1])
    last.look_at_the_end()
    last.doctor.look_at_first()
    last.doctor.look_at_pairs()
    return {
        "passes": last.step,
        "moves": last.step,
        "diagnosis": last.diagnosis.to_dict(),
        "model": type(last.doctor.model).__name__,
        "steps": last.step - last.began,
        "losses": [last.course[0], last.course[-1]] if last.course else [],
        "source_bits": last.figures.get("source_bits"),
        "source_bits_ci95": last.figures.get("source_bits_ci95"),
        "held_out": last.trainer.eval_dataset is not None,
    }
