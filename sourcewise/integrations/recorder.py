"""The course of somebody else's training in the lines that our own trainings log, for the same rules."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from sourcewise.diagnosis.course import Course
from sourcewise.diagnosis.plan import UNKNOWN, Plan
from sourcewise.integrations.finite import NotFinite, local
from sourcewise.model.families.huggingface import parts_of
from sourcewise.model.parts import ParameterInfo
from sourcewise.training.events import Evaluated, Started, Step, Stopped, WentOn, of
from sourcewise.training.statistics import gradient_norms, update_ratios

MATRICES = 4  # of a part, whose movement is looked at
UNLABELLED = (
    "Leave out examples whose labels are all -100, or see what masks or cuts them: a mean of no token is no number."
)


@dataclass(slots=True)
class Recorder:
    """Lines as in metrics.jsonl, made of what the Trainer logs and of the gradients and weights of its steps."""

    plan: Plan = UNKNOWN
    lines: list[dict[str, Any]] = field(default_factory=list)
    under_way: bool = False
    cure: str = ""  # of values that are not finite
    _norms: dict[str, float] = field(default_factory=dict)
    _ratios: dict[str, float] = field(default_factory=dict)
    _kept: list[tuple[ParameterInfo, torch.Tensor]] = field(default_factory=list)  # before a step
    _broken: int = 0  # the last step whose loss was not finite
    _logged: int = 0  # the last step that was logged

    @property
    def course(self) -> Course:
        """All lines so far."""
        return Course.read(self.lines, self.plan, under_way=self.under_way)

    @property
    def lost(self) -> bool:
        """Whether weights are no longer finite numbers."""
        return bool(of(self.lines, Stopped))

    def started(self) -> None:
        """The steps of the plan are to come."""
        self.under_way = True
        self.lines.append(Started(steps=self.plan.steps).line())

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
            cure=UNLABELLED if found.unlabelled else self.cure,
        ).line()
        line |= {"kind": Stopped.kind} if weights else {}
        self.lines = [each for each in self.lines if each is not first] + [line]

    def before_step(self, model: Any, optimizer: Any = None) -> None:
        """The gradients of a step, clipped or not; and a few weights, where the optimizer is no Adam."""
        learning = [info for info in _parts(model) if info.parameter.requires_grad]
        self._kept = [] if _adam(optimizer) else kept_weights(learning)
        gradients = [info.parameter.grad for info in learning]
        self._norms = gradient_norms([info.part for info in learning], gradients)

    def after_step(self, model: Any, optimizer: Any) -> None:
        """How far a step moved the weights."""
        if (adam := _adam(optimizer)) is not None:
            held = {id(p) for group in adam.param_groups for p in group["params"]}
            stepped = [info for info in _parts(model) if id(info.parameter) in held]
            self._ratios = update_ratios([i.part for i in stepped], [i.parameter for i in stepped], adam)
        elif self._kept:
            self._ratios = moved_ratios(self._kept)

    def logged(self, logs: Mapping[str, Any], step: int) -> None:
        """A line of training figures."""
        before, self._logged = self._logged, step
        norm = logs.get("grad_norm")
        if self.lost or self._broken > before or not math.isfinite(logs["loss"]):
            return  # what the Trainer logs of such steps is no loss
        line = Step(step=step, loss=float(logs["loss"])).line()
        if norm is not None and math.isfinite(norm):
            line["gradient_norm"] = line["largest_norm"] = float(norm)
            if self.plan.clip:
                line["clipped"] = float(norm > self.plan.clip)
            whole = sum(each**2 for each in self._norms.values()) ** 0.5
            if whole > 0:
                line["gradient_norms"] = {name: each / whole * float(norm) for name, each in self._norms.items()}
        if logs.get("learning_rate") is not None:
            line["learning_rate"] = float(logs["learning_rate"])
        if self._ratios:
            line["update_ratios"] = self._ratios
        self.lines.append(line)
        self._norms, self._ratios = {}, {}

    def stepped(self, line: Step) -> None:
        """A line of training figures as they are."""
        if not self.lost and self._broken <= self._logged:
            self.lines.append(line.line())
        self._logged = line.step

    def evaluated(self, metrics: Mapping[str, Any], step: int) -> None:
        """A line of figures over the examples that were looked at."""
        self.lines.append(Evaluated(step=step, metrics=metrics).line())


def _adam(optimizer: Any) -> Any:
    """The Adam that takes the steps; None where another optimizer does."""
    own = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
    return own if isinstance(own, torch.optim.Adam) else None


@torch.no_grad()
def kept_weights(infos: Sequence[ParameterInfo]) -> list[tuple[ParameterInfo, torch.Tensor]]:
    """A few matrices of each part, and copies of what they are."""
    found = []
    for part in dict.fromkeys(info.part for info in infos):
        of = [i for i in infos if i.part == part and i.parameter.ndim > 1 and local(i.parameter) is i.parameter]
        found += [(info, info.parameter.detach().clone()) for info in of[:: max(1, -(-len(of) // MATRICES))]]
    return found


@torch.no_grad()
def moved_ratios(kept: Sequence[tuple[ParameterInfo, torch.Tensor]]) -> dict[str, float]:
    """Part → how far its matrices have moved since they were kept, over their norms: the median."""
    ratios: dict[str, list[float]] = {}
    for info, before in kept:
        size = float(before.float().norm())
        if size > 0:
            ratios.setdefault(info.part, []).append(float((info.parameter - before).float().norm()) / size)
    return {part: statistics.median(each) for part, each in ratios.items()}


def _parts(model: Any) -> list[ParameterInfo]:
    """The parameters of a model by part; none of one that does not say what its encoder is."""
    try:
        return list(parts_of(model))
    except Exception:  # somebody's own class
        return []
