"""What becomes of a loop's gradients: whether they find others in their place, and whether an optimizer gets them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sourcewise.diagnosis.observed import Gradients
from sourcewise.integrations.finite import local
from sourcewise.integrations.loop.stepping import Stepping
from sourcewise.integrations.loop.watching import Hook

MOST = 256  # arrivals of which it is kept what they found
LOOKED = 2  # parameters of each optimizer: its first and its last
UNTAKEN = 40  # steps of a loop without a step of an optimizer, from which on it is told (see WIR030)


class Arrivals:
    """Watches gradients on their way to a few parameters of each optimizer; no number is changed."""

    def __init__(self, stepping: Stepping, guard: Callable[[str], Any]) -> None:
        self.stepping, self.guard = stepping, guard
        self._hooks: list[Any] = []
        self._found: dict[int, tuple[int, Tensor, Tensor]] = {}  # parameter → optimizer, what was there, what came
        self._counts = [[0, 0] for _ in stepping.optimizers]  # steps of each in the last two steps of the loop
        self._before = [0 for _ in stepping.optimizers]
        self._step = 0  # of the loop
        self._last: dict[int, tuple[int, int, Tensor]] = {}  # parameter → step, steps of optimizers, and what came
        self._later: list[tuple[Tensor, Tensor, Tensor]] = []  # what came, then came, and what then was there
        self._reached: dict[int, int] = {}  # parameters that the loss depends on, whoever has them: how many weights

    def reached(self, loss: Tensor) -> None:
        """Note the parameters that a loss depends on."""
        with self.guard("what the loss depends on"):
            self._reached = {id(p): p.numel() for p in leaves_of(loss)}

    def start(self) -> None:
        """From now on; what was seen before is forgotten."""
        self.stop()
        self._found = {}
        for place, optimizer in enumerate(self.stepping.optimizers):
            known = [p for p in _parameters(optimizer) if _is_plain(p)]
            for p in {id(p): p for p in (known[:1] + known[-1:])[:LOOKED]}.values():
                self._hooks.append(p.register_hook(Hook(partial(self._came, place, p))))

    def stop(self) -> None:
        """No longer."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def counted(self) -> None:
        """A step of the loop is over."""
        self._step += 1
        for place, count in enumerate(self.stepping.counts):
            self._counts[place] = [self._counts[place][1], count - self._before[place]]
            self._before[place] = count

    @torch.no_grad()
    def _came(self, place: int, parameter: Any, gradient: Tensor) -> None:
        key, taken = id(parameter), sum(self.stepping.counts)
        last = self._last.get(key)
        if last is not None and last[0] == self._step and key in self._found:
            return  # of several losses of a step, the first
        with self.guard("gradients on their way"):
            there, came = parameter.grad, gradient.detach().float().norm()
            size = gradient.new_zeros(()) if there is None else there.detach().float().norm()
            if last is not None and last[:2] == (self._step - 1, taken) and len(self._later) < MOST:
                self._later.append((last[2], came, size))
            self._last[key] = self._step, taken, came
            self._found.setdefault(key, (place, size, came))

    def gradients(self, steps: int, model: nn.Module) -> Gradients:
        """What was seen in the step that was watched last, of the parameters of the modules and of others."""
        own = {id(p) for p in model.parameters()}
        found = {key: (place, float(there), float(came)) for key, (place, there, came) in self._found.items()}
        each = [place for place, counts in enumerate(self._counts) if all(counts)]  # they step with every batch
        left = [there / came for place, there, came in found.values() if came > 0 and place in each]
        came_to = {place for place, _, came in found.values() if came > 0}
        got = {place for key, (place, _, _) in found.items() if self.stepping.gradients.get(key)}
        held = self.stepping.held
        sizes = {id(p): p.numel() ** 0.5 for each in self.stepping.optimizers for p in _parameters(each)}
        kept = [
            self.stepping.gradients[k] * sizes[k] / came
            for k, (_, there, came) in found.items()
            if came > 0 == there and self.stepping.gradients.get(k)
        ]
        reached = self._reached or {id(p): p.numel() for p in beside(model)}  # a loss may come without its graph
        outside = [size for key, size in reached.items() if key not in own and key not in held]
        return Gradients(
            max(left, default=0.0) if steps > 1 else 0.0,
            erased=self.stepping.taken and bool((came_to & set(each)) - got),
            untaken=steps if steps >= UNTAKEN and self.stepping.optimizers and not any(self.stepping.counts) else 0,
            strangers=len(held - own),
            held=len(held),
            kept=max(kept, default=math.nan),
            outside=(len(outside), sum(outside)),
            thrown=self._thrown(),
            adaptive=all("betas" in each.param_groups[0] for each in self.stepping.optimizers),
        )

    def _thrown(self) -> tuple[int, int]:
        """Gradients of a step of the loop that no optimizer took: how many were gone at the next, of how many."""
        rows = [[float(each) for each in row] for row in self._later]
        rows = [row for row in rows if row[0] > 0 and row[1] > 0 and all(map(math.isfinite, row))]
        return sum(there == 0 for _, _, there in rows), len(rows)


def beside(model: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters with a gradient of modules that stand in lists, tuples and dicts of others, unknown to these."""
    for module in list(model.modules()):
        for held in vars(module).values():
            values = held.values() if type(held) is dict else held if isinstance(held, (list, tuple)) else ()
            for each in values:
                if isinstance(each, nn.Module):
                    yield from (p for p in each.parameters() if p.grad is not None)


def leaves_of(loss: Tensor) -> list[nn.Parameter]:
    """The parameters at the ends of a loss's graph, also after backward()."""
    found: list[nn.Parameter] = []
    ahead, known = [loss.grad_fn], {loss.grad_fn}
    while ahead:
        node = ahead.pop()
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, nn.Parameter):
            found.append(leaf)
        for other, _ in getattr(node, "next_functions", ()):
            if other is not None and other not in known:
                known.add(other)
                ahead.append(other)
    return found


def _parameters(optimizer: Any) -> list[Any]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _is_plain(parameter: Any) -> bool:
    return bool(parameter.requires_grad and parameter.is_leaf and local(parameter) is parameter)
