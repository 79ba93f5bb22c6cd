"""Gradients in loops of one's own: not set to zero, not taken, not let through; the cause first, and healthy else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.diagnosis.instances.loops import Gru, Loop, Transformer, adam, copied, found, sgd

KINDS = pytest.mark.parametrize("kind", [Gru, Transformer])


@KINDS
@pytest.mark.parametrize("optimizers", [adam, sgd])
def test_healthy(kind: type[Loop], optimizers: Any) -> None:
    assert found(kind(optimizers).run()) == []


def never(self: Loop, loss: Tensor) -> None:
    loss.backward()
    for each in self.optimizers:
        each.step()


def once_only(self: Loop, loss: Tensor) -> None:
    """Set to zero before the first step, as where it stands above the loop."""
    never(self, loss)


def of_another(self: Loop, loss: Tensor) -> None:
    """The gradients of another module are set to zero."""
    nn.Linear(2, 2).zero_grad()
    never(self, loss)


def accumulated(self: Loop, loss: Tensor) -> None:
    """Four batches a step, as is meant."""
    (loss / 4).backward()
    self.count = getattr(self, "count", 0) + 1  # type: ignore[attr-defined]
    if self.count % 4 == 0:
        for each in self.optimizers:
            each.step()
            each.zero_grad()


def behind(self: Loop, loss: Tensor) -> None:
    loss.backward()
    for each in self.optimizers:
        each.step()
        each.zero_grad(set_to_none=False)


@KINDS
@pytest.mark.parametrize("optimizers", [adam, sgd])
@pytest.mark.parametrize("update", [never, once_only, of_another])
def test_gradients_that_add_up(kind: type[Loop], optimizers: Any, update: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind, "update", update)
    doctor = kind(optimizers).run()
    assert found(doctor)[0] == ("WIR029", "error")
    assert "optimizer.zero_grad()" in doctor.diagnosis.findings[0].cure


@KINDS
@pytest.mark.parametrize("update", [accumulated, behind])
def test_gradients_that_are_meant_to_add_up(kind: type[Loop], update: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind, "update", update)
    assert "WIR029" not in dict(found(kind().run()))


def no_step(self: Loop, loss: Tensor) -> None:
    self.optimizers[0].zero_grad()
    loss.backward()


def erased(self: Loop, loss: Tensor) -> None:
    loss.backward()
    self.optimizers[0].zero_grad()
    self.optimizers[0].step()


def too_early(self: Loop, loss: Tensor) -> None:
    self.optimizers[0].zero_grad()
    self.optimizers[0].step()
    loss.backward()


@KINDS
@pytest.mark.parametrize("update", [no_step, erased, too_early])
def test_gradients_that_are_not_taken(kind: type[Loop], update: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind, "update", update)
    assert found(kind().run())[0] == ("WIR030", "error")


def remade(parameters: list[nn.Parameter]) -> list[Any]:
    """Half of the weights were exchanged after the optimizer was made."""
    half = len(parameters) // 2
    return [torch.optim.Adam([*parameters[:half], *copy.deepcopy(parameters[half:])], lr=3e-3)]


def of_doubles(parameters: list[nn.Parameter]) -> list[Any]:
    """Made before the model was moved or cast."""
    return [torch.optim.Adam([nn.Parameter(p.detach().clone()) for p in parameters], lr=3e-3)]


@KINDS
@pytest.mark.parametrize("optimizers", [copied, remade, of_doubles])
def test_an_optimizer_of_other_weights(kind: type[Loop], optimizers: Any) -> None:
    doctor = kind(optimizers).run()
    assert found(doctor)[0] == ("WIR003", "error")
    assert "it was made of other weights" in doctor.diagnosis.findings[0].evidence


def detached(memory: Tensor) -> Tensor:
    return memory.detach()


def data(memory: Tensor) -> Tensor:
    return memory.data.clone()


def through_numpy(memory: Tensor) -> Tensor:
    return torch.from_numpy(memory.detach().numpy().copy())


@KINDS
@pytest.mark.parametrize("handed", [detached, data, through_numpy])
def test_an_encoder_that_is_read_detached(kind: type[Loop], handed: Any) -> None:
    training: Any = kind()
    if kind is Gru:
        training.handed = lambda memory, state: (handed(memory), handed(state))
    else:
        training.modules.handed = handed
    doctor = training.run()
    assert found(doctor)[0] == ("WIR012", "error")
    assert "detached" in doctor.diagnosis.findings[0].evidence
    assert "WIR028" not in dict(found(doctor))  # it was handed over


def test_an_encoder_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gru, "encoded", torch.no_grad()(Gru.encoded))
    doctor = Gru().run()
    assert found(doctor)[0] == ("WIR012", "error")
    assert "no_grad" in doctor.diagnosis.findings[0].evidence


def test_a_frozen_encoder_on_purpose() -> None:
    training = Gru()
    training.modules[0].requires_grad_(False)
    training.optimizers = adam(list(training.modules[1].parameters()))
    assert "WIR012" not in dict(found(training.run()))


def test_losses_are_the_same_while_gradients_are_watched() -> None:
    def losses(watched: bool) -> list[float]:
        training, out = Transformer(), []
        inner = training.update
        training.update = lambda loss: (out.append(loss.item()), inner(loss))[1]  # type: ignore[method-assign]
        training.run(every=3 if watched else 1000)
        return out

    assert losses(True) == losses(False)
