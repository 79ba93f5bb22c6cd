"""The reason of a loss or gradient that is not finite: a weight, a frame, a module that overflows, or a gradient."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from sourcewise.data.encoding import ExampleSet
from sourcewise.errors import NotFinite
from sourcewise.model.finite import damage, first_overflow
from sourcewise.training.objective import Objective
from sourcewise.training.optimizer import MasterAdamW, bare

HUGE = 1e4  # features above this are named beside an overflow


class StepNotFinite(NotFinite):
    """A step whose loss, gradient or weights are not finite, with message, reason and figures."""

    def __init__(self, step: int, said: str, why: str, **figures: float) -> None:
        super().__init__(f"step {step}: {said}: {why}")
        self.step, self.said, self.why, self.figures = step, said, why, figures


def why_not_finite(
    objective: Objective, optimizer: MasterAdamW, examples: ExampleSet, batches: Iterable[np.ndarray]
) -> str:
    """The first reason that applies, in words: a weight, a frame of these examples, a module, a gradient."""
    if (found := damage(optimizer.exact())) is not None:
        return f"a weight is not finite, {found}"
    rows = [int(row) for batch in batches for row in batch]
    frame = _worst_frame(examples, rows) if examples.dataset.dims else None
    if frame is not None and not np.isfinite(frame[0]):
        return f"a feature is not finite, {frame[1]}"
    told = f"; its largest feature is {frame[0]:.3g}, {frame[1]}" if frame is not None and frame[0] > HUGE else ""
    place = first_overflow(objective.network, lambda: _forward(objective, examples, rows))
    precision = str(next(objective.network.parameters()).dtype).removeprefix("torch.")
    if place is not None:
        return f"the arithmetic in {precision} overflows, first in {place}{told}"
    learned = zip(optimizer.names, optimizer.masters, strict=True)
    gradients = [(bare(name), master.grad) for name, master in learned if master.grad is not None]
    if (found := damage(gradients)) is not None:
        return f"a gradient is not finite, {found}{told}"
    largest = max(((float(g.abs().max()), n) for n, g in gradients), default=None)
    return (f"the largest gradient is {largest[0]:.3g}, of {largest[1]}" if largest else "no gradient is there") + told


@torch.no_grad()
def _forward(objective: Objective, examples: ExampleSet, rows: list[int]) -> None:
    for row in rows:  # one by one, since a batch may be large; any of them will do
        objective(examples.batch([row]))


def _worst_frame(examples: ExampleSet, rows: list[int]) -> tuple[float, str]:
    """The feature with the largest absolute value, or NaN, and its place: file and line, example, frame."""
    worst: tuple[float, str] = (0.0, "")
    for row in rows:
        matrix = np.abs(examples.read(row))
        size = np.where(np.isnan(matrix), np.inf, matrix)
        frame, dim = np.unravel_index(int(size.argmax()), size.shape)
        if size[frame, dim] > worst[0]:
            example = examples.dataset[row]
            where = " ".join(part for part in (example.where, example.id) if part)
            worst = float(size[frame, dim]), f"{where}: frame {frame}, dimension {dim} is {matrix[frame, dim]:g}"
    return worst
