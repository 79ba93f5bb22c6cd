"""Batches made ahead: while a step is computed, threads make the batches of the next one.

That is done for an accelerator, which would wait, and for features that are read from files, for which a CPU would.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np

from sourcewise.data.batches import Batch
from sourcewise.training.parts import Part
from sourcewise.training.plan import Plan
from sourcewise.training.state import Progress


class Ahead:
    """The parts of each step, whose batches were begun during the step before."""

    def __init__(self, plan: Plan, target_cost: float, *, pin: bool, threads: int = 1) -> None:
        """`pin`: batches are in memory from which a GPU copies while the host goes on."""
        self.plan, self.target_cost, self.pin = plan, target_cost, pin
        self.threads = ThreadPoolExecutor(threads, thread_name_prefix="batches")
        self.begun: tuple[Sequence[np.ndarray], list[list[Part]]] = ((), [])  # batches of the next step, and its parts
        self._made_soon: list[Future[Batch]] = []
        _ALL.add(self)

    def parts(self, batches: Sequence[np.ndarray], at: Progress) -> list[list[Part]]:
        """The parts of the next step in `at`, as of `Plan.parts`; begins to make the batches of the step after it."""
        ahead, parts = self.begun
        if len(ahead) != len(batches) or any(one is not other for one, other in zip(ahead, batches, strict=True)):
            parts = self._begin(batches, at.step, at.parts)
        self._made_soon, following = [], self.plan.upcoming(at)
        self.begun = following, self._begin(following, at.step + 1, at.parts)
        return parts

    def settle(self) -> None:
        """Wait until nothing is being made."""
        wait(self._made_soon)

    def _begin(self, batches: Sequence[np.ndarray], step: int, count: int) -> list[list[Part]]:
        parts = self.plan.parts(batches, step, count, self.target_cost)
        return [[part._replace(make=self._soon(part.make)) for part in own] for own in parts]

    def _soon(self, make: Callable[[], Batch]) -> Callable[[], Batch]:
        future = self.threads.submit(self._made, make)
        self._made_soon.append(future)
        return future.result

    def _made(self, make: Callable[[], Batch]) -> Batch:
        batch = make()
        return batch.pinned() if self.pin else batch


_ALL: weakref.WeakSet[Ahead] = weakref.WeakSet()


def _settle_all() -> None:
    """A fork would copy the locks that a thread holds while it reads a file, and nobody would free them."""
    for each in list(_ALL):
        each.settle()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(before=_settle_all)
