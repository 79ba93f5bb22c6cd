"""Steps as on an accelerator, on the CPU: gradients by `backward()`, and nothing read before a line of the log."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from sourcewise.api import prepare
from sourcewise.errors import NotFinite
from sourcewise.model.place import place
from sourcewise.runtime.threads import WorkerThreads
from sourcewise.training.loop import Training
from sourcewise.training.objective import Objective
from sourcewise.training.optimizer import MasterAdamW
from sourcewise.training.parts import Part
from sourcewise.training.run import Run
from sourcewise.training.step import DeviceEngine, StepEngine, ThreadedEngine, engine_for
from tests.model.networks import network
from tests.training.recipes import recipe
from tests.training.test_gradients import part
from tests.training.test_optimizer import config

BATCHES = ([0, 3], [1, 4, 2])


def summed(precision: torch.dtype, device: bool) -> tuple[list[torch.Tensor], float, int]:
    """What a step of two batches leaves in the optimizer, its nats and source tokens."""
    torch.manual_seed(5)
    objective = place(Objective(network(dropout=0.3).train(), config()), "cpu")
    optimizer = MasterAdamW(objective, config(), precision)
    threads = ThreadedEngine(objective, optimizer, WorkerThreads(None))
    engine: StepEngine = DeviceEngine(objective, optimizer) if device else threads
    found, read = engine.gradients([[Part(partial(part, rows), 6)] for rows in BATCHES], 28, 1.0)
    assert all(parameter.grad is None for parameter in optimizer.parameters)
    gradients = [torch.zeros(()) if m.grad is None else m.grad for m in optimizer.masters]
    return gradients, sum(float(nats) for batch in found for nats in batch), read


@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 0.02)])
def test_the_gradients_are_those_of_the_threads(precision: torch.dtype, tolerance: float) -> None:
    (ours, nats, read), (theirs, *others) = summed(precision, True), summed(precision, False)
    assert [nats, read] == others
    assert sum(bool(gradient.any()) for gradient in ours) > 20
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() <= tolerance * other.norm() + 1e-8


def test_hooks_see_what_goes_through_the_module() -> None:
    objective = Objective(network().train(), config())
    optimizer = MasterAdamW(objective, config(), torch.float32)
    seen: list[str] = []
    objective.register_forward_hook(lambda *_: seen.append("forward"))
    weight = objective.network.body.embedding.weight

    def silence(parameter: torch.Tensor) -> None:
        seen.append("gradient")
        assert parameter.grad is not None
        parameter.grad.zero_()

    weight.register_post_accumulate_grad_hook(silence)
    DeviceEngine(objective, optimizer).gradients([[Part(partial(part, rows), 6)] for rows in BATCHES], 28, 1.0)
    assert seen == ["forward", "gradient"] * 2
    (of_weight,) = (m.grad for p, m in zip(optimizer.parameters, optimizer.masters, strict=True) if p is weight)
    assert of_weight is not None and not of_weight.any()


def test_a_cpu_has_threads() -> None:
    objective = Objective(network(), config())
    engine = engine_for(objective, MasterAdamW(objective, config(), torch.float32), 100)
    assert isinstance(engine, ThreadedEngine) and engine.workers == 1


def as_on_a_device(folder: Path, **options: Any) -> Training:
    """A training that reads nothing of a step before a line of the log."""
    folder.mkdir(parents=True)
    made = recipe(folder, train__precision="fp32", train__log_every=5, model__dropout=0.1, **options)
    training = prepare(made, Run(folder))
    learner = training.learner
    learner.engine, learner.optimizer.lazy = DeviceEngine(learner.objective, learner.optimizer), True
    return training


def test_a_training_is_the_same_whenever_its_steps_are_read(tmp_path: Path) -> None:
    options: dict[str, Any] = {"train__steps": 12, "train__evaluate_every": 6, "train__clip": 2.0}
    lazy = as_on_a_device(tmp_path / "lazy", **options)
    unread: list[int] = []
    lazy.listeners = [Counting(lazy, unread)]
    lazy.fit()
    made = recipe(tmp_path / "lazy", train__precision="fp32", train__log_every=5, model__dropout=0.1, **options)
    (tmp_path / "plain").mkdir()
    plain = prepare(made, Run(tmp_path / "plain"))
    plain.listeners = ()
    plain.fit()
    assert unread == [1, 2, 3, 4, 0, 1, 1, 2, 3, 0, 1, 0]  # read at 5, 10 and 12, and where it saves, after 6
    timed = {"seconds", "tokens_per_s", "peak_mb", "began", "device"}
    first, second = ([{k: v for k, v in li.items() if k not in timed} for li in t.run.metrics()] for t in (lazy, plain))
    assert [line["kind"] for line in first].count("train") == 3
    assert 0 < first[1]["clipped"] <= 1
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for key in ("loss", "clipped", "gradient_norm", "largest_norm", "epoch", "learning_rate"):
            assert (key in one) == (key in other)
            assert one.get(key, 0) == pytest.approx(other.get(key, 0), rel=1e-4), key


class Counting:
    """A `Listener` that counts the steps that nobody read."""

    def __init__(self, training: Training, to: list[int]) -> None:
        self.training, self.to = training, to

    def started(self, run: Run, step: int, total: int) -> None:
        """See Listener."""

    def stepped(self, step: int, line: dict[str, Any] | None) -> None:
        """See Listener."""
        self.to.append(len(self.training.learner.unread))

    def evaluated(self, line: dict[str, Any]) -> None:
        """See Listener."""

    def stopped(self, run: Run, finished: bool) -> None:
        """See Listener."""


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_that_is_not_finite_ends_it_though_it_is_read_later(bad: float, tmp_path: Path) -> None:
    training = as_on_a_device(tmp_path / "run", train__steps=20, train__evaluate_every=20)
    learner = training.learner
    whole, seen = learner.engine.gradients, [0]
    before: dict[str, torch.Tensor] = {}

    def spoiling(*given: Any) -> Any:
        found = whole(*given)
        seen[0] += 1
        if seen[0] == 7:
            before.update({name: weight.clone() for name, weight in learner.optimizer.weights().items()})
            learner.optimizer.masters[3].grad.view(-1)[0] = bad  # type: ignore[union-attr]
        return found

    learner.engine.gradients = spoiling  # type: ignore[method-assign]
    with pytest.raises(NotFinite, match=r"step 7: the loss is \d.*, the norm of its gradient (nan|inf); nothing was"):
        training.fit()
    assert seen == [10] and learner.at.step == 10
    after = learner.optimizer.weights()
    assert before and all(torch.equal(before[name], after[name]) for name in before)
    (line,) = (line for line in training.run.metrics() if line["kind"] == "stopped")
    assert line["step"] == 7 and not (training.run.folder / "checkpoints").exists()
