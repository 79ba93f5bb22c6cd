"""The course of a Trainer's training in the lines that our own trainings log, for the same rules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from sourcewise.diagnosis.course import Course
from sourcewise.integrations.finite import NotFinite
from sourcewise.model.families.huggingface import parts_of
from sourcewise.model.parts import ParameterInfo
from sourcewise.training.events import Evaluated, Started, Step, Stopped, WentOn, of
from sourcewise.training.statistics import gradient_norms, update_ratios

DEFAULT_CLIP = 1.0  # the norm that the rules take a clipped step to be clipped to
CURE = (
    "Go back to the last checkpoint before that step. Where norms grew before it, a lower learning_rate, more "
    "warmup_steps, or max_grad_norm=1.0; where they did not, look at the data of that batch, and at whatever writes to "
    "the weights; with fp16, train in bf16 or fp32."
)
UNLABELLED = (
    "Leave out examples whose labels are all -100, or see what masks or cuts them: a mean of no token is no number."
)


@dataclass(slots=True)
class Recorder:
    """Lines as in metrics.jsonl, made of what the Trainer logs and of the gradients and weights of its steps."""

    pretrained: bool = False
    other_loss: str = ""  # why the Trainer's loss is no cross-entropy, where it is none
    lines: list[dict[str, Any]] = field(default_factory=list)
    under_way: bool = False
    _norms: dict[str, float] = field(default_factory=dict)
    _ratios: dict[str, float] = field(default_factory=dict)
    _broken: int = 0  # the last step whose loss was not finite
    _logged: int = 0  # the last step that was logged

    @property
    def course(self) -> Course:
        """All lines so far."""
        known: dict[str, Any] = {
            "pretrained": self.pretrained,
            "other_loss": self.other_loss,
            "under_way": self.under_way,
        }
        return replace(Course.read(self.lines), **known)

    @property
    def lost(self) -> bool:
        """Whether weights are no longer finite numbers."""
        return bool(of(self.lines, Stopped))

    def started(self, steps: int) -> None:
        """So many steps are to come."""
        self.under_way = True
        self.lines.append(Started(steps=steps).line())

    def entropy(self, nats: float) -> None:
        """The entropy of the target tokens' frequencies."""
        next(line for line in self.lines if line["kind"] == Started.kind)["target_entropy"] = nats

    def not_finite(self, found: NotFinite, weights: str = "", gradients: str = "", moments: str = "") -> None:
        """A step's loss or gradient, and which weights, gradients or moments are none: one line of all.

        It is that of the first; of the first that did harm, where one does. Weights that are lost end the course.
        """
        grave = bool(weights) or not found.harmless
        first = next((line for line in self.lines if line["kind"] in (WentOn.kind, Stopped.kind)), None)
        self._broken = found.step
        if first is not None and moments and first["moments"] and found.loss is found.norm is None:
            return  # the same moments, asked for again
        if first is not None and (first["grave"] or not grave):
            first["times"] += 1
            if weights and first["kind"] != Stopped.kind:
                first |= {"kind": Stopped.kind, "lost": f"from step {found.step} on the weights {weights}"}
            return
        line = WentOn(
            step=found.step,
            grave=grave,
            loss=found.loss,
            gradient_norm=found.norm,
            weights=weights,
            gradients=gradients,
            moments=moments,
            unlabelled=found.unlabelled,
            cure=UNLABELLED if found.unlabelled else CURE,
        ).line()
        line |= {"kind": Stopped.kind} if weights else {}
        self.lines = [each for each in self.lines if each is not first] + [line]

    def before_step(self, model: Any) -> None:
        """The gradients of a step, clipped or not."""
        learning = [info for info in parts_of(model) if info.parameter.requires_grad]
        self._norms = gradient_norms(_parts(learning), [info.parameter.grad for info in learning])

    def after_step(self, model: Any, optimizer: Any) -> None:
        """How far a step moved the weights, where an Adam took it."""
        adam = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
        if not isinstance(adam, torch.optim.Adam):
            return
        has = {id(p) for group in adam.param_groups for p in group["params"]}
        stepped = [info for info in parts_of(model) if id(info.parameter) in has]
        self._ratios = update_ratios(_parts(stepped), [info.parameter for info in stepped], adam)

    def logged(self, logs: Mapping[str, Any], step: int, clip: float) -> None:
        """A line of training figures."""
        before, self._logged = self._logged, step
        norm = logs.get("grad_norm")
        if self.lost or self._broken > before or not math.isfinite(logs["loss"]):
            return  # what the Trainer logs of such steps is no loss
        line = Step(step=step, loss=float(logs["loss"])).line()
        if norm is not None and math.isfinite(norm):
            line["gradient_norm"] = line["largest_norm"] = float(norm)
            if clip == DEFAULT_CLIP:
                line["clipped"] = float(norm > clip)
            whole = sum(each**2 for each in self._norms.values()) ** 0.5
            if whole > 0:
                line["gradient_norms"] = {name: each / whole * float(norm) for name, each in self._norms.items()}
        if logs.get("learning_rate") is not None:
            line["learning_rate"] = float(logs["learning_rate"])
        if self._ratios:
            line["update_ratios"] = self._ratios
        self.lines.append(line)
        self._norms, self._ratios = {}, {}

    def evaluated(self, metrics: Mapping[str, Any], step: int) -> None:
        """A line of figures over the examples that were looked at."""
        self.lines.append(Evaluated(step=step, metrics=metrics).line())


def _parts(infos: Sequence[ParameterInfo]) -> list[str]:
    return [info.part for info in infos]
