"""The steps of a loop's optimizers: which weights they hold, the gradients they take, how far they move them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from sourcewise.diagnosis.measures.first_step import Weight, width_of
from sourcewise.diagnosis.measures.freshness import is_drawn
from sourcewise.diagnosis.observed import Decay, Rates, Rounded
from sourcewise.diagnosis.plan import Plan
from sourcewise.errors import RequestError
from sourcewise.integrations.finite import half_of, local
from sourcewise.integrations.loop.watching import Hook, noises
from sourcewise.integrations.rates import settings
from sourcewise.integrations.rounding import Counted, counted, is_half, later, rounded_of, some
from sourcewise.model.parts import ParameterInfo
from sourcewise.training.events import Step

MOST = 5000  # changes of the learning rate that are noted
NOTHING = 1e-6  # of the highest rate of all groups; parts that were loaded are often given a hundredth
RECENT = 0.05  # of the steps, since when a rate that rises has risen last


class Stepping:
    """Watches the steps of some optimizers, when `on`; each parameter's last gradient and update."""

    def __init__(self, optimizers: Sequence[Any], guard: Callable[[str], Any]) -> None:
        self.optimizers = list(optimizers)
        self.guard = guard
        self.on = False
        self.taken = False  # whether an optimizer stepped since `on`
        self.counts = [0 for _ in self.optimizers]  # steps of each so far
        self.gradients: dict[int, float] = {}  # parameter → root mean square
        self.updates: dict[int, float] = {}
        self._moving: list[Counted] = []  # of matrices in half precision
        self._rounded: Rounded | None = None  # the look at them that tells
        self._before: dict[int, Tensor] = {}
        self._within = False  # a step
        self._rates: list[float] = []  # of the first optimizer, each as it changed
        self._rate, self._fell, self._changed = 0.0, False, 0  # the last of them, and the step since when
        self._hooks = []
        for each in self.optimizers:
            self._hooks.append(each.register_step_pre_hook(Hook(partial(self.entered, each))))
            self._hooks.append(each.register_step_post_hook(Hook(partial(self._left, each))))

    @property
    def held(self) -> set[int]:
        """The parameters that some optimizer has."""
        return {id(p) for each in self.optimizers for group in each.param_groups for p in group["params"]}

    @property
    def rate(self) -> float:
        """The highest learning rate of now."""
        rates = [float(group.get("lr") or 0.0) for each in self.optimizers for group in each.param_groups]
        return max(rates, default=0.0)

    def rates(self) -> Rates | None:
        """The learning rates of the steps so far; None where no schedule has noted the rate that it began with."""
        first = self.optimizers[0].param_groups[0] if self.optimizers else {}
        base = first.get("max_lr", first.get("initial_lr"))  # OneCycleLR begins far below what it is made for
        if not isinstance(base, (int, float)) or not self._rates:
            return None
        rises = [b > a for a, b in pairwise(self._rates)]
        turns = sum(a != b for a, b in pairwise(rises))
        steps = self.counts[0]
        rising = any(rises) and not self._fell and steps - self._changed <= RECENT * steps
        highest = max(self._rate, *self._rates)
        return Rates(float(base), highest, steps, len(self._rates) - 1, turns, rising, "max_lr" in first)

    @property
    def still(self) -> set[int]:
        """The parameters whose rate is 0, or next to nothing, while others have one."""
        rates = [(float(group.get("lr") or 0.0), group) for each in self.optimizers for group in each.param_groups]
        highest = max((rate for rate, _ in rates), default=0.0)
        return {id(p) for rate, group in rates if rate < NOTHING * highest for p in group["params"]}

    def decay(self) -> Decay | None:
        """The strongest weight decay; None where there is none."""
        groups = [(each, group) for each in self.optimizers for group in each.param_groups]
        if not groups:
            return None
        optimizer, group = max(groups, key=lambda of: float(of[1].get("weight_decay") or 0))
        if (value := float(group.get("weight_decay") or 0)) <= 0:
            return None
        kind = type(optimizer).__name__
        decoupled = bool(group.get("decoupled_weight_decay", kind.lower().endswith("w")))
        return Decay(value, not decoupled and "betas" in group, kind)

    def rounded(self) -> Rounded | None:
        """How many numbers in half precision a step moved, of those looked at; None where there are none."""
        if self._moving and self.taken:
            self._rounded = later(self._rounded, rounded_of(self._moving, self.rate))
        return self._rounded

    def start(self) -> None:
        """The next step is looked at."""
        self.on, self.taken = True, False
        if not self._within:  # a closure calls the model within the step
            self.gradients, self.updates, self._before, self._moving = {}, {}, {}, []

    def stop(self) -> None:
        """No longer."""
        self.on, self._before = False, {}

    def remove(self) -> None:
        """For good."""
        for hook in self._hooks:
            hook.remove()

    @torch.no_grad()
    def entered(self, optimizer: Any, *given: Any) -> None:
        """A step of this optimizer begins, or what comes before its weights move."""
        self._within = True
        if self.on:
            with self.guard("the updates of the weights"):
                self._before |= {id(p): some(p).clone() for p in _learning(optimizer)}

    @torch.no_grad()
    def _left(self, optimizer: Any, *given: Any) -> None:
        self._within = False
        place = next(i for i, each in enumerate(self.optimizers) if each is optimizer)
        self.counts[place] += 1
        rate = optimizer.param_groups[0].get("lr") if place == 0 else None
        if isinstance(rate, float) and (not self._rates or rate != self._rate):
            self._fell = self._fell or rate < self._rate
            self._rate, self._changed = rate, self.counts[0]
            self._rates += [rate][: MOST - len(self._rates)]
        if not self.on:
            return
        with self.guard("the gradients and updates of the weights"):
            self.taken = True
            known = _learning(optimizer)
            stepped = [p for p in known if p.grad is not None]  # a closure makes them within the step
            sizes = roots([_whole(p.grad) for p in stepped])
            self.gradients |= {id(p): size for p, size in zip(stepped, sizes, strict=True)}
            moved = [p for p in known if id(p) in self._before]
            self._moving += [
                counted(p, self._before[id(p)], some(p.grad)) for p in moved if is_half(p) and p.grad is not None
            ]
            apart = roots([some(p).float() - self._before.pop(id(p)).float() for p in moved])
            self.updates |= {id(p): size for p, size in zip(moved, apart, strict=True)}


@torch.no_grad()
def weights_of(parts: Sequence[ParameterInfo], stepping: Stepping) -> tuple[Weight, ...]:
    """All parameters of a model in the step that was looked at last; those of no optimizer by their own gradient."""
    held = stepping.held if stepping.taken else set()
    still = stepping.still
    sizes = roots([_whole(info.parameter) for info in parts])
    left = [info.parameter for info in parts if id(info.parameter) not in held and info.parameter.grad is not None]
    own = dict(zip(map(id, left), roots([_whole(p.grad) for p in left]), strict=True))
    found = []
    means = means_of([_whole(info.parameter) for info in parts])
    for info, size, mean in zip(parts, sizes, means, strict=True):
        parameter = info.parameter
        found.append(
            Weight(
                info.name,
                parameter.numel(),
                size,
                learns=True,
                frozen=not parameter.requires_grad,
                gradient=stepping.gradients.get(id(parameter), own.get(id(parameter))),
                optimised=id(parameter) in stepping.held,
                update=stepping.updates.get(id(parameter), 0.0),
                part=info.part,
                layer=info.layer,
                matrix=parameter.ndim > 1,
                width=width_of(parameter),
                drawn=not (parameter.requires_grad and id(parameter) in stepping.held - still) and is_drawn(parameter),
                still=id(parameter) in still,
                mean=mean,
            )
        )
    return tuple(found)


def roots(tensors: Sequence[Any]) -> list[float]:
    """Root mean squares; the device is waited for once."""
    if not tensors:
        return []
    norms = [each.float().norm() / math.sqrt(max(1, each.numel())) for each in tensors]
    device = norms[0].device
    return [float(x) for x in torch.stack([norm.to(device) for norm in norms]).tolist()]


def means_of(tensors: Sequence[Any]) -> list[float]:
    """Means; the device is waited for once."""
    if not tensors:
        return []
    means = [each.float().sum() / max(1, each.numel()) for each in tensors]
    return [float(x) for x in torch.stack([mean.to(means[0].device) for mean in means]).tolist()]


def line_of(number: int, nats: float, scale: float, rate: float, weights: Sequence[Weight]) -> Step:
    """A step of the course: nats of a token, and gradients, times `scale`, and updates by part."""
    norms, ratios = by_part(weights)
    whole = math.sqrt(sum(norm**2 for norm in norms.values()))
    return Step(
        step=number,
        loss=nats,
        learning_rate=rate or None,
        gradient_norm=whole * scale if whole else None,
        gradient_norms={part: norm * scale for part, norm in norms.items()} if whole else None,
        update_ratios=ratios or None,
    )


def by_part(weights: Sequence[Weight]) -> tuple[dict[str, float], dict[str, float]]:
    """Part → norm of its gradient; part → update over size, the median of its matrices."""
    squares: dict[str, float] = {}
    ratios: dict[str, list[float]] = {}
    for weight in weights:
        if weight.gradient is not None and not weight.frozen:
            squares[weight.part] = squares.get(weight.part, 0.0) + weight.size * weight.gradient**2
        if weight.matrix and weight.update > 0 and weight.value > 0:
            ratios.setdefault(weight.part, []).append(weight.update / weight.value)
    norms = {part: math.sqrt(square) for part, square in squares.items()}
    return norms, {part: statistics.median_high(values) for part, values in ratios.items()}


def optimizers_in(given: Any) -> list[Any]:
    """One optimizer, several, or none. Raises RequestError for what is none."""
    several = given if isinstance(given, (list, tuple)) else [given] if given is not None else []
    found = [unwrapped(each) for each in several]
    for each in found:
        if not isinstance(each, torch.optim.Optimizer):
            raise RequestError(f"doctor: {type(each).__name__} is no torch.optim.Optimizer, nor are several of them")
    return found


def planned(optimizers: Sequence[Any], model: nn.Module, *, steps: int, trained: bool) -> Plan:
    """What is known before the first step of how a loop trains."""
    taken = [each for one in optimizers for each in settings(one)]
    taken.append(("dropout", "dropout", max((p for p, _ in noises(model)), default=0.0)))
    known = tuple(dict.fromkeys(taken))
    return Plan(steps=steps, fresh=False, trained=trained, clip=0.0, half=half_of(model), taken=known)


def unwrapped(optimizer: Any) -> Any:
    """The optimizer inside what wraps it, such as accelerate's."""
    while not isinstance(optimizer, torch.optim.Optimizer) or hasattr(optimizer, "optimizer"):
        inner = getattr(optimizer, "optimizer", None)
        if inner is None or inner is optimizer:
            break
        optimizer = inner
    return optimizer


def _whole(tensor: Any) -> Tensor:
    held = local(tensor.detach())
    return held.coalesce().values() if held.is_sparse else held


def _learning(optimizer: Any) -> list[Any]:
    return [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
