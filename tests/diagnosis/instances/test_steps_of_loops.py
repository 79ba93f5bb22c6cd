"""Steps of loops: gradients clipped while scaled, weights as they were drawn, or drawn for another width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.diagnosis.instances.loops import Gru, Loop, Transformer, adam, found, sgd
from tests.integrations.loops import PAD

KINDS = pytest.mark.parametrize("kind", [Gru, Transformer])


def scaled(scale: float, clip: float, order: str) -> Callable[[Loop, Tensor], None]:
    """Half precision by hand: the loss times `scale`; `order` is which of clip and divide come, in which order."""

    def update(self: Loop, loss: Tensor) -> None:
        for each in self.optimizers:
            each.zero_grad()
        (loss * scale).backward()
        for what in order.split():
            if what == "clip":
                nn.utils.clip_grad_norm_(self.parameters(), clip)
            else:
                for p in self.parameters():
                    if p.grad is not None:
                        p.grad /= scale
        for each in self.optimizers:
            each.step()

    return update


@KINDS
@pytest.mark.parametrize(("scale", "clip"), [(65536.0, 1.0), (1024.0, 0.5), (2.0**20, 5.0)])
def test_clipped_before_divided(kind: Any, scale: float, clip: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind, "update", scaled(scale, clip, "clip divide"))
    monkeypatch.setattr(kind, "steps", 14)
    doctor = kind(sgd).run()
    assert found(doctor)[0] == ("WIR035", "error")
    assert "before they are divided" in doctor.diagnosis.findings[0].evidence


@KINDS
@pytest.mark.parametrize("order", ["divide clip", "divide"])
def test_divided_before_clipped(kind: Any, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind, "update", scaled(65536.0, 1.0, order))
    monkeypatch.setattr(kind, "steps", 14)
    assert found(kind(sgd).run()) == []


@KINDS
def test_never_divided(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind, "update", scaled(1024.0, 1.0, ""))
    monkeypatch.setattr(kind, "steps", 14)
    assert ("WIR035", "warning") in found(kind(adam).run())


@KINDS
@pytest.mark.parametrize("many", [8, 64])
def test_losses_that_are_summed_or_accumulated_are_not_scaled(
    kind: Any, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def summed(self: Loop, said: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(said.flatten(0, 1), labels.flatten(), ignore_index=PAD, reduction="sum")

    monkeypatch.setattr(kind, "loss", summed)
    monkeypatch.setattr(kind, "steps", 14)
    monkeypatch.setattr(kind, "update", scaled(1 / many, 1.0, "clip"))
    assert "WIR035" not in dict(found(kind(adam).run()))


@KINDS
def test_a_loss_averaged_over_the_padding(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def over_all(self: Loop, said: Tensor, labels: Tensor) -> Tensor:
        losses = nn.functional.cross_entropy(said.transpose(1, 2), labels, reduction="none")
        return (losses * (labels != PAD)).mean()

    monkeypatch.setattr(kind, "steps", 14)
    monkeypatch.setattr(kind, "loss", over_all)
    doctor = kind().run()
    assert found(doctor) == [("WIR008", "warning")]
    assert "divided by all" in doctor.diagnosis.findings[0].evidence


def encoder_of(loop: Any) -> nn.Module:
    return loop.modules[0] if isinstance(loop.modules, tuple) else loop.modules.transformer.encoder  # type: ignore[no-any-return]


@KINDS
@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_an_encoder_that_was_never_loaded(kind: Any, scale: float) -> None:
    loop = kind()
    loop.steps = 14
    state = {f"module.{name}": table for name, table in encoder_of(kind()).state_dict().items()}
    encoder_of(loop).load_state_dict(state, strict=False)
    for p in encoder_of(loop).parameters():
        p.requires_grad_(False)
        p.data *= scale
    loop.optimizers = adam([p for p in loop.parameters() if p.requires_grad])
    doctor = loop.run()
    assert found(doctor)[0] == ("WIR003", "error")
    assert "look as they were drawn" in doctor.diagnosis.findings[0].evidence


def test_an_encoder_that_was_loaded() -> None:
    first = Gru()
    first.steps = 90
    first.run(every=1000)
    loop = Gru()
    loop.steps = 14
    loop.modules[0].load_state_dict(first.modules[0].state_dict())
    loop.modules[0].requires_grad_(False)
    loop.optimizers = adam(list(loop.modules[1].parameters()))
    assert "WIR003" not in dict(found(loop.run()))


@KINDS
@pytest.mark.parametrize("deviation", [0.01, 0.02])
def test_weights_drawn_for_another_width(kind: Any, deviation: float) -> None:
    loop = kind()
    loop.steps = 6
    with torch.no_grad():
        for p in loop.parameters():
            if p.ndim > 1:
                p.normal_(0, deviation)
    assert ("WIR034", "warning") in found(loop.run())


@KINDS
@pytest.mark.parametrize("draw", [nn.init.xavier_uniform_, nn.init.kaiming_normal_, nn.init.orthogonal_])
def test_weights_drawn_for_their_width(kind: Any, draw: Any) -> None:
    loop = kind()
    loop.steps = 6
    for p in loop.parameters():
        if p.ndim > 1:
            draw(p)
    assert "WIR034" not in dict(found(loop.run()))
