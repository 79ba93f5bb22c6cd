"""Steps as on an accelerator, on the CPU: gradients by `backward()`, and nothing read before a line of the log."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from sourcewise.api import prepare
from sourcewise.data.batches import FRAMES, TOKENS, WIDE
from sourcewise.errors import NotFinite, RequestError
from sourcewise.model import attention
from sourcewise.model.place import place
from sourcewise.runtime.threads import WorkerThreads
from sourcewise.training.ahead import Ahead
from sourcewise.training.learner import suit
from sourcewise.training.loop import Training
from sourcewise.training.objective import Objective
from sourcewise.training.optimizer import MasterAdamW
from sourcewise.training.parts import Part
from sourcewise.training.run import Run
from sourcewise.training.step import DeviceEngine, StepEngine, ThreadedEngine, engine_for
from tests.model.networks import network
from tests.training.recipes import feature_recipe, recipe
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


def test_batches_made_ahead_are_those_of_the_plan(tmp_path: Path) -> None:
    """Whatever thread makes them, across epochs, with draws; those of the next step are begun before it."""
    options: dict[str, Any] = {"train__text_noise__mask": 0.3, "train__accumulate": 2, "train__batch_tokens": 4096}
    training = as_on_a_device(tmp_path / "run", train__steps=12, **options)
    learner, plan = training.learner, training.learner.plan
    ahead = Ahead(plan, 1.0, pin=False)
    epochs, begun = set(), 0
    for batches in plan.steps(learner.at):
        at = learner.at
        wanted = plan.parts(batches, at.step, at.parts)
        begun += bool(ahead.begun[0]) and ahead.begun[0][0] is batches[0]
        found = ahead.parts(batches, at)
        for one, other in zip(found, wanted, strict=True):
            assert [part.seed for part in one] == [part.seed for part in other]
            for mine, theirs in zip(one, other, strict=True):
                a, b = mine.make(), theirs.make()
                assert a.indices == b.indices and torch.equal(a.labels, b.labels)
                assert torch.equal(a.source.content, b.source.content)
        epochs.add(at.epoch)
        at.step, at.position = at.step + 1, at.position + len(batches)
    assert len(epochs) > 2 and begun >= 12 - len(epochs)


def test_a_training_with_batches_made_ahead_is_the_same(tmp_path: Path) -> None:
    weights = []
    for name in ("ahead", "plain"):
        training = as_on_a_device(tmp_path / name, train__steps=9, train__evaluate_every=4)
        if name == "ahead":
            training.learner.ahead = Ahead(training.learner.plan, 1.0, pin=False)
        training.listeners = ()
        training.fit()
        weights.append(training.learner.optimizer.weights())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_an_error_in_a_batch_made_ahead_is_told(tmp_path: Path) -> None:
    training = as_on_a_device(tmp_path / "run", train__steps=9)
    learner = training.learner
    learner.ahead = Ahead(learner.plan, 1.0, pin=False)

    def broken(rows: Any) -> Any:
        raise RequestError("features/a.npy: it is gone")

    learner.plan.batch = broken  # type: ignore[method-assign]
    with pytest.raises(RequestError, match="it is gone"):
        training.fit()


@pytest.mark.parametrize("made", [recipe, feature_recipe])
def test_widths_on_an_accelerator_are_multiples_of_sixteen(made: Any, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    plan = prepare(made(tmp_path), Run(tmp_path / "run")).learner.plan
    for coarse, multiples in ((1, (FRAMES if made is feature_recipe else TOKENS, TOKENS)), (WIDE, (16, 16))):
        plan.coarse = coarse
        for rows in plan.batches(0)[:5]:
            batch = plan.batch(rows)
            source, target = batch.source.content.shape[1], batch.labels.shape[1]
            assert source % multiples[0] == target % multiples[1] == 0
            assert source - multiples[0] < batch.source.lengths.max() <= source


def test_scaled_updates_are_the_same_though_nobody_reads_the_scales() -> None:
    results = []
    for lazy in (False, True):
        torch.manual_seed(2)
        objective = Objective(network(dropout=0.0), config(scale_updates=True))
        optimizer = MasterAdamW(objective, config(scale_updates=True), torch.float32)
        optimizer.lazy = lazy
        engine = DeviceEngine(objective, optimizer)
        for _ in range(3):
            engine.gradients([[Part(partial(part, rows), 6)] for rows in BATCHES], 28, 1.0)
            optimizer.step(0.01)
            optimizer.zero_grad()
        assert isinstance(optimizer.adamw.param_groups[0]["lr"], torch.Tensor) == lazy
        results.append([*optimizer.weights().values()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_a_deterministic_training_asks_torch_for_it_and_ends_asking(tmp_path: Path) -> None:
    training = as_on_a_device(tmp_path / "run", train__steps=3, train__evaluate_every=3, train__deterministic=True)
    seen: list[bool] = []
    whole = training.learner.engine.gradients

    def watched(*given: Any) -> Any:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return whole(*given)

    training.learner.engine.gradients = watched  # type: ignore[method-assign]
    training.fit()
    assert seen == [True] * 3 and not torch.are_deterministic_algorithms_enabled()


def test_a_deterministic_training_on_an_accelerator_has_the_attention_that_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sourcewise.training.learner.is_host", lambda device: False)
    net = network()
    attention.choose(net, "sdpa")
    suit(net, config(deterministic=True))
    assert {m.backend for m in net.modules() if isinstance(m, attention.Attention)} == {attention.BACKENDS["eager"]}
    with pytest.raises(RequestError, match=r"train\.deterministic: the gradient of CTC"):
        suit(net, config(deterministic=True, ctc_weight=0.1))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_that_checkpoints_is_the_same(precision: str, tmp_path: Path) -> None:
    weights = []
    for checkpointing in ("none", "light", "blocks"):
        (tmp_path / checkpointing).mkdir()
        options: dict[str, Any] = {"train__precision": precision, "train__checkpointing": checkpointing}
        made = recipe(tmp_path, train__steps=6, train__evaluate_every=6, model__dropout=0.1, **options)
        training = prepare(made, Run(tmp_path / checkpointing))
        training.listeners = ()
        training.fit()
        weights.append(training.learner.optimizer.weights())
    first, *others = weights
    assert all(torch.equal(first[name], other[name]) for other in others for name in first)


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
