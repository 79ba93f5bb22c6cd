"""From what a script does with torch to the doctor of a loop: its modules, optimizers, losses and batches.

A batch is what lies between the first call of a module that learns and the steps of the optimizers; or the next such
call, where gradients are gathered over several. The first batches tell which modules are the model: those that give
what a loss takes tokens for. From then on the doctor is told of each of their batches.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sourcewise.integrations.loop import LoopDoctor, doctor
from sourcewise.integrations.loop.watching import Watching
from sourcewise.integrations.script.batches import Batches
from sourcewise.integrations.script.found import held_by, optimizers_of, roots_of, trained
from sourcewise.integrations.telling import said

SEARCH = 5  # batches, after which the model is what it was taken for, whether it says tokens or not
GATHERED = 64  # batches without a step, after which gradients are not gathered but lost


@dataclass
class Unit:
    """One batch as it goes on."""

    called: dict[int, nn.Module] = field(default_factory=dict)
    loss: Tensor | None = None  # the sum, where there are several
    stepped: set[int] = field(default_factory=set)  # optimizers


class Watcher:
    """Is told what a script does, as `hooks.Listener`; `done` is called once so many batches have been looked at."""

    def __init__(self, steps: int, done: Callable[[], None]) -> None:
        self.steps, self.done = steps, done
        self.doctor: LoopDoctor | None = None
        self.problems: dict[str, str] = {}
        self.batches = Batches()
        self.passes = 0  # backward passes
        self.moves = 0  # steps of optimizers
        self.ended = False
        self.others: Counter[str] = Counter()  # batches of what is not the model, by its name
        self._unit = Unit()
        self._first = Watching([], self._guard)  # of a batch of which nothing is known before
        self._chosen = False
        self._several = False  # whether others learn in steps of their own, as in a GAN: then a batch ends with a step
        self._said = io.StringIO()  # what the doctor says before it is the model's for sure
        self._within: Any = None  # the optimizer whose step is going on
        self._tried = 0

    # ── what happens ──────────────────────────────────────────────────────────────────────────────────────────────────

    def called(self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        """A module is about to be called."""
        if self.ended:
            self.done()  # the script caught it
            return
        if not torch.is_grad_enabled():
            with self._guard("the evaluation"):
                if self._of_doctor(module):
                    self.batches.evaluated()
            return
        if not any(p.requires_grad for p in module.parameters()):
            return
        if self._unit.loss is not None and (self._unit.stepped or not self._several):
            self._over()
        with self._guard("the calls of the script"):
            new = id(module) not in self._unit.called
            self._unit.called[id(module)] = module
            self.batches.called(module, given, named)
            if new and not self._chosen:
                self._first.deep = True
                self._first.add(f"model{len(self._unit.called)}", module)

    def lost(self, loss: Tensor) -> None:
        """Gradients of a loss are about to be made."""
        if self.ended or not self._unit.called:
            return
        self.passes += 1
        loss = loss.detach().reshape(())
        self._unit.loss = loss if self._unit.loss is None else self._unit.loss + loss.to(self._unit.loss.device)

    def graded(self) -> None:
        """They are there. Where an optimizer asked for them, it is about to move the weights."""
        if self.ended or not self._unit.called:
            return
        if self.doctor is None:
            self._perhaps_begin()
        if self.doctor is not None and not self.doctor.stepping.optimizers:
            self._over()  # before the script moves the weights, and forgets the gradients

    def _perhaps_begin(self) -> None:
        if self._within is not None and (found := self._begin()) is not None:
            found.stepping.entered(self._within)
        elif self._within is None and self.passes == 1:  # nobody's optimizer: the script itself moves the weights
            with self._guard("which optimizers the script has"):
                if not optimizers_of(roots_of(self._unit.called.values())):
                    self._begin()

    def stepping(self, optimizer: Any) -> None:
        """An optimizer is about to move its weights."""
        if self.ended:
            return
        self._within = optimizer
        if self.doctor is None and self._unit.loss is not None:
            self._begin()

    def stepped(self, optimizer: Any) -> None:
        """It has."""
        self._within = None
        if self.ended or self._unit.loss is None:
            return
        self.moves += 1
        self._unit.stepped.add(id(optimizer))
        if self.doctor is not None and {id(each) for each in self.doctor.stepping.optimizers} <= self._unit.stepped:
            self._over()

    def loaded(self, batch: Any) -> None:
        """A loader gave a batch."""
        self.batches.loaded(batch)

    def aimed(self, target: Any) -> None:
        """A loss was given its labels."""
        if not self.ended:
            self.batches.aimed(target)

    def end(self) -> None:
        """Nothing follows: what was begun is told."""
        self.steps = 0
        if self._unit.loss is not None and not self.ended:
            self._over()
        self.ended = True
        self._first.stop()

    # ── the model, and its batches ────────────────────────────────────────────────────────────────────────────────────

    def _begin(self, unit: Unit | None = None) -> LoopDoctor | None:
        """Take what this batch called for the model, before its weights first move."""
        unit = unit or self._unit
        with self._guard("which modules the script trains"):
            roots = roots_of(unit.called.values())
            holders = optimizers_of(roots)
            roots = trained(roots, holders)
            if roots:
                with contextlib.redirect_stderr(self._said):
                    self._doctor_of(roots, optimizers_of(roots))
        return self.doctor

    def _doctor_of(self, roots: list[nn.Module], optimizers: list[Any]) -> None:
        """A doctor that has seen this batch."""
        self._first.stop()
        found = _doctor(roots, optimizers, self._tried)
        names = {id(each): f"{top}.{path}".rstrip(".") for top, m in found.modules for path, each in m.named_modules()}
        seen = found.watching
        seen.calls = [call for call in self._first.calls if id(call.module) in names]
        seen.inner = [call for call in self._first.inner if id(call.module) in names]
        for call in (*seen.calls, *seen.inner):
            call.name = names[id(call.module)]
        if not any(call.said for call in seen.calls):
            seen.deep = True
        else:
            seen.inner = [call for call in seen.inner if not isinstance(call.module, nn.Linear)]
        self.doctor = found

    def _over(self) -> None:
        """This batch is over."""
        unit, self._unit = self._unit, Unit()
        try:
            with self._guard("the batches of the script"):
                self._judge(unit)
        finally:
            self.batches.over()
        taken = 0 if self.doctor is None else self.doctor.history.global_step
        if self.steps and taken >= self.steps:
            self.done()

    def _judge(self, unit: Unit) -> None:
        """Tell the doctor of a batch, where it is the model's."""
        if self.doctor is None and self.passes == GATHERED:
            self._begin(unit)
        found = self.doctor
        if found is None:
            self._first.start()
            return
        if not self._is_own(unit, found):
            self._leave(unit, found)
            return
        said = bool(found.watching.saying)
        batch = self.batches.of(found)
        assert unit.loss is not None
        with contextlib.nullcontext() if self._chosen else contextlib.redirect_stderr(self._said):
            found.step(unit.loss, batch)
        self._tried += 1
        self.batches.told(found)
        if not self._chosen:
            self._choose(found, unit, said)

    def _is_own(self, unit: Unit, found: LoopDoctor) -> bool:
        """Whether a batch is one of the model's: its optimizers stepped, or none did and its modules were called."""
        own = {id(each) for each in found.stepping.optimizers}
        if unit.stepped:
            return bool(own & unit.stepped) or not own
        return any(self._of_doctor(module) for module in unit.called.values())

    def _leave(self, unit: Unit, found: LoopDoctor) -> None:
        """A batch of something else: what was seen of it is forgotten."""
        if found.watching.on:
            found.watching.start()
            found.stepping.start()
        self._count(unit)

    def _choose(self, found: LoopDoctor, unit: Unit, said: bool) -> None:
        """Whether this is the model; else the next batch is looked at as if it were the first."""
        if not said and self._tried < SEARCH:
            self._count(unit)
            self._drop(found)
            self._first.start()
            return
        self._chosen = True
        self._first.stop()
        modules, optimizers = [module for _, module in found.modules], found.stepping.optimizers
        stepped = [each for each in optimizers if id(each) in unit.stepped]
        others = {i for each in optimizers if each not in stepped for i in held_by(each)}
        own = [module for module in trained(modules, stepped) if not {id(p) for p in module.parameters()} <= others]
        if stepped and own and len(own) < len(modules):  # the others learn in steps of their own, as in a GAN
            self._drop(found)
            self._several = True
            self.doctor = _doctor(own, stepped, self._tried)
        else:
            print(self._said.getvalue(), end="", file=sys.stderr)

    def _drop(self, found: LoopDoctor) -> None:
        found.watching.stop()
        found.stepping.remove()
        self.doctor = None
        self._said = io.StringIO()

    def _count(self, unit: Unit) -> None:
        """A batch of modules that are not the model."""
        for module in roots_of(unit.called.values()):
            if not self._of_doctor(module) and any(p.grad is not None for p in module.parameters()):
                self.others[type(module).__name__] += 1

    def _of_doctor(self, module: nn.Module) -> bool:
        return self.doctor is not None and any(
            each is module for _, root in self.doctor.modules for each in root.modules()
        )

    @contextlib.contextmanager
    def _guard(self, what: str) -> Iterator[None]:
        """Within: an error of ours is a line of the report, and nothing of the script's."""
        try:
            yield
        except Exception as problem:
            self.problems.setdefault(what, said(problem))


def _doctor(modules: list[nn.Module], optimizers: list[Any], before: int) -> LoopDoctor:
    """A doctor of modules that were found, after so many batches."""
    found = doctor(modules[0] if len(modules) == 1 else tuple(modules), optimizers)
    found.history.global_step = before
    return found
