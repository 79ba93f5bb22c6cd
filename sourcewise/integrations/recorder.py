"""The course of a Trainer's training in the lines that our own trainings log, for the same rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from sourcewise.diagnosis.course import Course
from sourcewise.integrations.wiring import part
from sourcewise.training.vitals import gradient_norms, update_ratios

DEFAULT_CLIP = 1.0  # the norm that the rules take a clipped step to be clipped to


@dataclass(frozen=True, slots=True)
class _Masters:
    """What vitals read of an optimizer: names that begin as ours do, their tensors, and the AdamW with a group each."""

    names: list[str]
    masters: list[torch.Tensor]
    adamw: Any


@dataclass(frozen=True, slots=True)
class _Groups:
    param_groups: list[dict[str, Any]]
    state: Mapping[torch.Tensor, Any]


@dataclass(slots=True)
class Recorder:
    """Lines as in metrics.jsonl, made of what the Trainer logs and of the gradients and weights of its steps."""

    pretrained: bool = False
    lines: list[dict[str, Any]] = field(default_factory=list)
    _norms: dict[str, float] = field(default_factory=dict)
    _ratios: dict[str, float] = field(default_factory=dict)

    @property
    def course(self) -> Course:
        """All lines so far."""
        return replace(Course.read(self.lines), pretrained=self.pretrained)

    def started(self, steps: int, entropy: float | None) -> None:
        """So many steps are to come; `entropy` is that of the target tokens' frequencies, in nats."""
        self.lines.append({"kind": "start", "step": 0, "steps": steps, "target_entropy": entropy})

    def before_step(self, model: Any) -> None:
        """The gradients of a step, clipped or not."""
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        names = [f"body.{part(name)}" for name, _ in named]
        self._norms = gradient_norms(_Masters(names, [p for _, p in named], None))  # type: ignore[arg-type]

    def after_step(self, model: Any, optimizer: Any) -> None:
        """How far a step moved the weights, where an Adam took it."""
        adam = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
        if not isinstance(adam, torch.optim.Adam):
            return
        of = {id(p): group for group in adam.param_groups for p in group["params"]}
        named = [(name, p) for name, p in model.named_parameters() if id(p) in of]
        groups = _Groups([of[id(p)] for _, p in named], adam.state)
        found = _Masters([f"body.{part(name)}" for name, _ in named], [p for _, p in named], groups)
        self._ratios = update_ratios(found)  # type: ignore[arg-type]

    def logged(self, logs: Mapping[str, Any], step: int, clip: float) -> None:
        """A line of training figures."""
        line: dict[str, Any] = {"kind": "train", "step": step, "loss": float(logs["loss"])}
        norm = logs.get("grad_norm")
        if norm is not None:
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
        self.lines.append({"kind": "evaluation", "step": step, **metrics})
