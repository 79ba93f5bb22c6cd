"""The peak rate of somebody else's training: of any schedule whose class tells it, and said where it does not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

pytest.importorskip("accelerate", reason="transformers' Trainer needs it")
transformers = pytest.importorskip("transformers")

from transformers.optimization import Adafactor, AdafactorSchedule  # noqa: E402

from sourcewise.integrations.rates import peaks, unknown  # noqa: E402
from sourcewise.integrations.transformers import SourcewiseCallback  # noqa: E402
from tests.integrations.trainings import t5, trainer  # noqa: E402


class Own:
    """Sets the rate of the groups by itself, from 0 on."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer, self.taken = optimizer, 0

    def step(self) -> None:
        self.taken += 1
        for group in self.optimizer.param_groups:
            group["lr"] = 4e-3 * min(1.0, self.taken / 5)

    def get_last_lr(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]


class Factor:
    """Counts who asks."""

    calls = 0

    def __call__(self, step: int) -> float:
        self.calls += 1
        return 1.0


def noam(step: int, warmup: int = 100) -> float:
    """Vaswani et al. 2017, for a base rate of 1."""
    return float(48**-0.5 * min(max(step, 1) ** -0.5, max(step, 1) * warmup**-1.5))


def adam(rate: float) -> Any:
    return torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))], lr=rate)


SCHEDULES: list[tuple[float, Callable[[Any], Any], float | None]] = [
    (1.0, lambda o: lr_scheduler.LambdaLR(o, noam), noam(100)),
    (1.0, lambda o: lr_scheduler.LambdaLR(o, partial(noam, warmup=400)), noam(400, 400)),
    (0.5, lambda o: transformers.get_scheduler("linear", o, 50, 400), 0.5),
    (0.5, lambda o: transformers.get_scheduler("inverse_sqrt", o, 100, 400), 0.5),
    (0.5, lambda o: transformers.get_scheduler("linear", o, 4000, 400), 0.05),
    (0.0, lambda o: transformers.get_scheduler("cosine", o, 50, 400), 0.0),
    (0.1, lambda o: lr_scheduler.OneCycleLR(o, 0.3, total_steps=400), 0.3),
    (0.1, lambda o: lr_scheduler.OneCycleLR(
        o, 0.3, total_steps=8001, anneal_strategy="linear", cycle_momentum=False), 0.012 + 0.288 * 400 / 2399.3),
    (0.1, lambda o: lr_scheduler.LinearLR(o, 0.01, total_iters=4000), 0.1 * (0.01 + 0.99 * 0.1)),
    (0.1, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.1, total_iters=40), 0.1),
    (0.1, lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.01, total_iters=4000), lr_scheduler.CosineAnnealingLR(o, 90)], [4000]), 0.01099),
    (0.1, lambda o: lr_scheduler.StepLR(o, 10), 0.1),
    (0.1, lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.01), lr_scheduler.CosineAnnealingLR(o, 90)], [10]), 0.1),
    (0.1, lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LambdaLR(o, noam), lr_scheduler.StepLR(o, 9)], [9]), None),
    (0.0, Own, None),
    (1.0, lambda o: lr_scheduler.LambdaLR(o, Factor()), None),
    (0.1, lambda o: lr_scheduler.LambdaLR(o, [0.5, 1.0, 0.5].__getitem__), None),
    (0.1, lambda o: None, 0.1),
]  # fmt: skip


@pytest.mark.parametrize(("base", "make", "peak"), SCHEDULES)
def test_the_peak_is_that_of_the_schedule(base: float, make: Any, peak: float | None) -> None:
    optimizer = adam(base)
    schedule = make(optimizer)
    asked = [getattr(factor, "calls", 0) for factor in getattr(schedule, "lr_lambdas", ())]
    (found,) = peaks(optimizer, schedule, 400)
    assert found is None if peak is None else found == pytest.approx(peak, rel=0.01)
    assert bool(unknown(optimizer, schedule, 400)) == (peak is None)
    assert asked == [getattr(factor, "calls", 0) for factor in getattr(schedule, "lr_lambdas", ())]


def relative(model: Any) -> tuple[Any, Any]:
    made = Adafactor(model.parameters(), scale_parameter=True, relative_step=True, warmup_init=True, lr=None)
    return made, AdafactorSchedule(made)


def one(model: Any) -> tuple[Any, Any]:
    made = torch.optim.Adam(model.parameters(), lr=1.0, betas=(0.9, 0.98), eps=1e-9)
    return made, lr_scheduler.LambdaLR(made, noam)


def zero(model: Any) -> tuple[Any, Any]:
    made = torch.optim.Adam(model.parameters(), lr=0.0)
    return made, Own(made)


def nothing(model: Any) -> tuple[Any, Any]:
    made = torch.optim.AdamW(model.parameters(), lr=0.0)
    return made, lr_scheduler.LambdaLR(made, noam)


@pytest.mark.parametrize(
    ("make", "ill", "told"),
    [(relative, False, "AdafactorSchedule"), (one, False, ""), (zero, False, "Own"), (nothing, True, "")],
)
def test_a_rate_that_comes_later_is_no_fault(make: Any, ill: bool, told: str, tmp_path: Path) -> None:
    built = trainer(tmp_path, t5(), steps=3, eval_strategy="no")
    built.optimizer, built.lr_scheduler = make(built.model)
    callback = SourcewiseCallback(built)
    built.add_callback(callback)
    built.train()
    assert ("WIR014" in {finding.code for finding in callback.diagnosis.findings}) == ill
    assert any("WIR014" in line and told in line for line in callback.diagnosis.not_checked) == bool(told)
