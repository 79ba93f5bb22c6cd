"""The learning rates that the optimizer of somebody else's training will come to, as far as its schedule tells."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from torch.optim import lr_scheduler

from sourcewise.diagnosis.plan import Reached

GRID = 1000  # steps at which a schedule is asked
FAR = 20  # times the steps of a training
FALLING = (  # schedules that begin at the highest rate, or come to it, or say it in their groups
    lr_scheduler.StepLR,
    lr_scheduler.MultiStepLR,
    lr_scheduler.ConstantLR,
    lr_scheduler.LinearLR,
    lr_scheduler.ExponentialLR,
    lr_scheduler.PolynomialLR,
    lr_scheduler.CosineAnnealingLR,
    lr_scheduler.CosineAnnealingWarmRestarts,
    lr_scheduler.ReduceLROnPlateau,
    lr_scheduler.OneCycleLR,
    lr_scheduler.CyclicLR,
)


def groups(optimizer: Any) -> list[dict[str, Any]]:
    """The parameter groups of an optimizer; none where it has none."""
    return getattr(optimizer, "param_groups", None) or []


def settings(optimizer: Any) -> list[tuple[str, str, float]]:
    """What an optimizer was made with that is far from any use, perhaps: kind, name and value (see WIR020)."""
    found = []
    for group in groups(optimizer):
        eps, betas = group.get("eps"), group.get("betas")
        if betas is not None and isinstance(eps, float):
            found.append(("epsilon", "eps", eps))
        if isinstance(betas, (tuple, list)) and len(betas) == 2:
            found.append(("swapped", "betas[0] - betas[1]", float(betas[0]) - float(betas[1])))
        if isinstance(group.get("momentum"), float):
            found.append(("momentum", "momentum", group["momentum"]))
        found.append(("maximize", "maximize", float(bool(group.get("maximize")))))
    return list(dict.fromkeys(found))


def peaks(optimizer: Any, scheduler: Any, steps: int) -> list[float | None]:
    """The highest rate of each parameter group in so many steps; None where it does not show before.

    That is so where the optimizer finds its rate by itself (Adafactor's relative steps), and where the schedule is of a
    class of somebody's own: it may begin at 0 and go anywhere.
    """
    schedule = getattr(scheduler, "scheduler", scheduler)  # accelerate wraps it
    return [_peak(group, place, schedule, steps) for place, group in enumerate(groups(optimizer))]


def reached(optimizer: Any, scheduler: Any, steps: int, turns: int = 0) -> Reached | None:
    """The highest rate in so many steps, and in many times as many; None where it does not show before.

    `turns` is how often the schedule is stepped in these, where that is not with each of them.
    """
    count = turns or steps
    if steps < 1 or not groups(optimizer):
        return None
    if groups(optimizer)[0].get("relative_step"):
        own = groups(optimizer)[0]
        return Reached(_relative(own, count), _relative(own, FAR * count), steps)
    within, beyond = (peaks(optimizer, scheduler, each)[0] for each in (count, FAR * count))
    return None if within is None or beyond is None else Reached(within, beyond, steps)


def _relative(group: dict[str, Any], steps: int) -> float:
    """The highest of Adafactor's own rates in so many steps: min(1e-6·step, 1/√step), or min(1e-2, 1/√step)."""
    return min(1e-6 * steps, 1e-2) if group.get("warmup_init") else 1e-2


def unknown(optimizer: Any, scheduler: Any, steps: int) -> str:
    """Why no rate is known before the first step, in words; "" where one is."""
    found = peaks(optimizer, scheduler, steps)
    if not found or any(rate is not None for rate in found):
        return ""
    own = getattr(scheduler, "scheduler", scheduler)
    return f"no peak of it shows before the first step; its schedule is {_name(own)}"


def _peak(group: dict[str, Any], place: int, schedule: Any, steps: int) -> float | None:
    if group.get("relative_step") or group.get("lr") is None:
        return None
    base = max(float(group.get("initial_lr", group["lr"])), float(group.get("max_lr", 0.0)))
    if type(schedule) is lr_scheduler.LambdaLR:  # such as all of transformers' own
        factor = _highest(schedule.lr_lambdas[place], steps)
        return None if factor is None else base * factor
    several = list(getattr(schedule, "_schedulers", [schedule]))
    if schedule is not None and not all(type(each) in FALLING for each in several):
        return None
    if type(schedule) is lr_scheduler.SequentialLR:  # each until the next one's milestone, from its own beginning
        bounds = [0, *schedule._milestones]
        spans = [min(steps, end) - begin for begin, end in zip(bounds, [*bounds[1:], steps], strict=True)]
        return max(_rise(each, place, base, span) for each, span in zip(several, spans, strict=True) if span >= 0)
    return _rise(schedule, place, base, steps)


def _rise(schedule: Any, place: int, base: float, steps: int) -> float:
    """How high a schedule of torch's comes in so many steps: up to `base`, or as far as its warm-up has gone."""
    if type(schedule) not in (lr_scheduler.LinearLR, lr_scheduler.OneCycleLR):
        return base
    if getattr(schedule, "total_iters", 1) < 1:
        return base
    asked = copy.copy(schedule)  # which no step counts; the rates of both follow from `last_epoch` alone
    asked._get_lr_called_within_step = True
    asked.optimizer = types.SimpleNamespace(param_groups=[dict(group) for group in schedule.optimizer.param_groups])
    give = getattr(asked, "_get_closed_form_lr", asked.get_lr)
    highest = 0.0
    for step in np.unique(np.linspace(0, min(steps, asked.__dict__.get("total_steps", steps)), GRID).astype(int)):
        asked.last_epoch = int(step)
        highest = max(highest, float(give()[place]))
    return highest


def _highest(factor: Callable[[int], float], steps: int) -> float | None:
    """The largest factor of a schedule; None where asking it might change it, or it cannot be asked."""
    inner = factor.func if isinstance(factor, partial) else factor
    if not isinstance(inner, types.FunctionType):
        return None
    try:
        asked = np.unique(np.linspace(0, max(1, steps), GRID).astype(int))
        return max(float(factor(int(step))) for step in asked)
    except Exception:  # somebody's own: of fewer steps, say
        return None


def _name(schedule: Any) -> str:
    lambdas = getattr(schedule, "lr_lambdas", ())
    inner = f" of {type(lambdas[0]).__name__}" if type(schedule) is lr_scheduler.LambdaLR and lambdas else ""
    return f"{type(schedule).__name__}{inner}"
