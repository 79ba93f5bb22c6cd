"""Batches made ahead: while an accelerator computes a step, a thread makes the batches of the next one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sourcewise.data.batches import Batch
from sourcewise.training.parts import Part
from sourcewise.training.plan import Plan
from sourcewise.training.state import Progress


class Ahead:
    """The parts of each step, whose batches were begun during the step before."""

    def __init__(self, plan: Plan, target_cost: float, *, pin: bool) -> None:
        """`pin`: batches are in memory from which a GPU copies while the host goes on."""
        self.plan, self.target_cost, self.pin = plan, target_cost, pin
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self.begun: tuple[Sequence[np.ndarray], list[list[Part]]] = ((), [])  # batches of the next step, and its parts

    def parts(self, batches: Sequence[np.ndarray], at: Progress) -> list[list[Part]]:
        """The parts of the next step in `at`, as of `Plan.parts`; begins to make the batches of the step after it."""
        ahead, parts = self.begun
        if len(ahead) != len(batches) or any(one is not other for one, other in zip(ahead, batches, strict=True)):
            parts = self._begin(batches, at.step, at.parts)
        following = self.plan.upcoming(at)
        self.begun = following, self._begin(following, at.step + 1, at.parts)
        return parts

    def _begin(self, batches: Sequence[np.ndarray], step: int, count: int) -> list[list[Part]]:
        parts = self.plan.parts(batches, step, count, self.target_cost)
        return [[part._replace(make=self.thread.submit(self._made, part.make).result) for part in own] for own in parts]

    def _made(self, make: Callable[[], Batch]) -> Batch:
        batch = make()
        return batch.pinned() if self.pin else batch
