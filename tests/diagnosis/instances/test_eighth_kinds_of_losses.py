"""Kinds of which people tell, the eighth time, in the losses of loops: the wrong sign, labels that are spread, scaled
logits; two instances of each or more, and healthy neighbours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sourcewise.diagnosis.measures.objective import said_by
from tests.diagnosis.instances.loops import Gru, Transformer, found
from tests.diagnosis.instances.test_other_kinds_of_loops import first, trained
from tests.diagnosis.instances.test_seventh_kinds import Plain, evidence, losing
from tests.integrations.loops import PAD, SIZE

Loss = Callable[[Tensor, Tensor], Tensor]


def usual(said: Tensor, labels: Tensor, **options: Any) -> Tensor:
    return F.cross_entropy(said.reshape(-1, SIZE), labels.reshape(-1), ignore_index=PAD, **options)


def spread(said: Tensor, labels: Tensor, confidence: float) -> Tensor:
    """As the Annotated Transformer smooths."""
    kept = labels != PAD
    wanted = torch.full((int(kept.sum()), SIZE), (1 - confidence) / (SIZE - 2))
    wanted.scatter_(1, labels[kept][:, None], confidence)
    wanted[:, PAD] = 0
    return F.kl_div(torch.log_softmax(said[kept], -1), wanted, reduction="batchmean")


def away(said: Tensor, labels: Tensor) -> Tensor:
    return -usual(said, labels)


def without_minus(said: Tensor, labels: Tensor) -> Tensor:
    return torch.log_softmax(said, -1).gather(-1, labels[..., None])[..., 0][labels != PAD].mean()


@pytest.mark.parametrize("kind", [Plain, Transformer])
@pytest.mark.parametrize("loss", [away, without_minus])
def test_a_loss_of_the_wrong_sign(kind: Any, loss: Loss) -> None:
    doctor = trained(losing(kind, loss), 14)
    assert first(doctor) == "WIR027" and "the wrong way" in evidence(doctor, "WIR027")


def test_log_probabilities_of_the_wrong_sign() -> None:
    doctor = trained(losing(Gru, lambda said, labels: -F.nll_loss(said.flatten(0, 1), labels.flatten())), 14)
    assert first(doctor) == "WIR027" and "the wrong way" in evidence(doctor, "WIR027")


def focal(said: Tensor, labels: Tensor, *, right: bool) -> Tensor:
    """Of what is known already little counts; the wrong way round, of what is not known, and is then unlearned."""
    nats = F.cross_entropy(said.movedim(-1, 1), labels, ignore_index=PAD, reduction="none")
    known = (-nats).exp()
    return ((1 - known if right else known) ** 2 * nats).mean()


def test_a_focal_loss_the_wrong_way_round() -> None:
    assert first(trained(losing(Transformer, lambda s, y: focal(s, y, right=False)), 6)) == "WIR027"
    assert found(trained(losing(Transformer, lambda s, y: focal(s, y, right=True)), 6)) == []


@pytest.mark.parametrize("kind", [Plain, Transformer])
@pytest.mark.parametrize("share", [0.9, 0.6])
def test_labels_that_are_spread(kind: Any, share: float) -> None:
    doctor = trained(losing(kind, lambda said, labels: usual(said, labels, label_smoothing=share)), 31)
    assert first(doctor) == "WIR027"
    assert f"{100 * share:.0f} % of each label are spread" in evidence(doctor, "WIR027")


@pytest.mark.parametrize("kind", [Plain, Transformer])
@pytest.mark.parametrize("loss", [lambda s, y: usual(s, y, label_smoothing=0.1), lambda s, y: spread(s, y, 0.8)])
def test_labels_that_are_smoothed(kind: Any, loss: Loss) -> None:
    assert found(trained(losing(kind, loss), 31)) == []


@pytest.mark.parametrize(
    ("kind", "by", "said"),
    [(Plain, 100.0, "divided by 100"), (Transformer, 100.0, "divided by 100"), (Transformer, 0.02, "multiplied by 50")],
)
def test_logits_that_are_scaled(kind: Any, by: float, said: str) -> None:
    doctor = trained(losing(kind, lambda out, labels: usual(out / by, labels)), 14)
    assert first(doctor) == "WIR027" and said in evidence(doctor, "WIR027")


class Cosines(Transformer):
    """Outputs are cosines, and the loss multiplies them."""

    def made(self) -> Any:
        inner: Any = super().made()
        whole = inner.generator.forward

        def cosine(x: Tensor) -> Tensor:
            return F.normalize(whole(x), dim=-1)  # type: ignore[no-any-return]

        inner.generator.forward = cosine
        return inner

    def loss(self, said: Tensor, labels: Tensor) -> Tensor:
        return usual(said * 20, labels)


def test_cosines_are_multiplied_and_a_little_temperature_is_none() -> None:
    for loop in (Cosines(), losing(Transformer, lambda said, labels: usual(said / 2, labels))):
        doctor = trained(loop, 14)
        assert "WIR027" not in dict(found(doctor))
        assert doctor.understood is not None and doctor.understood.whole


@pytest.mark.parametrize("kind", [Plain, Transformer])
def test_a_penalty_of_certainty_is_another_loss(kind: Any) -> None:
    """Its gradient tells no labels, or not all of them: nothing may be said of those that it does not tell."""

    def loss(said: Tensor, labels: Tensor) -> Tensor:
        certain = (torch.softmax(said, -1) * torch.log_softmax(said, -1)).sum(-1).mean()
        return usual(said, labels) + 0.1 * certain

    assert found(trained(losing(kind, loss), 31)) == []


@pytest.mark.parametrize("size", [16, 500])
@pytest.mark.parametrize("temperature", [100.0, 2.0, 0.05])
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_a_temperature_is_measured(size: int, temperature: float, scale: float) -> None:
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(size, (4, 6), generator=draw)
    out = (scale * torch.randn(4, 6, size, generator=draw)).requires_grad_()
    F.cross_entropy((out / temperature).flatten(0, 1), labels.flatten()).backward()
    assert out.grad is not None
    said = said_by(out.detach(), out.grad)
    unsure = F.cross_entropy((out / temperature).movedim(-1, 1), labels, reduction="none") > 1e-3
    assert said is not None and said.form == "logits" and torch.equal(said.labels[unsure], labels[unsure])
    assert said.temperature == pytest.approx(temperature, rel=0.01) and abs(said.smoothing) < 0.01
