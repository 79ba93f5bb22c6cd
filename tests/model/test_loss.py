"""The chunked cross-entropy against torch's own, where probabilities are near 0, near 1 and in between."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sourcewise.data.batches import IGNORED
from sourcewise.model import loss
from sourcewise.model.loss import Emphasis, LinearCrossEntropy
from sourcewise.native.install import install


@pytest.fixture(params=["plain", "native"])
def door(request: pytest.FixtureRequest) -> LinearCrossEntropy:
    made = LinearCrossEntropy()
    if request.param == "native":
        install(made)
    return made


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("scale", [0.5, 4.0, 40.0])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_value_and_gradients(
    door: LinearCrossEntropy, precision: torch.dtype, scale: float, smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "CHUNK_LOGITS", 64 * 300)  # several chunks
    draw = torch.Generator().manual_seed(0)
    states = (torch.randn(250, 32, generator=draw) * scale).to(precision).requires_grad_()
    weight = (torch.randn(300, 32, generator=draw) / 6).to(precision).requires_grad_()
    labels = torch.randint(0, 300, (250,), generator=draw)
    with torch.no_grad():
        labels[:120] = (states @ weight.T)[:120].argmax(-1)  # likely ones, too
    labels[::9] = IGNORED
    nats = door(states, weight, labels, smoothing)[0]
    (nats / 250).backward()
    exact = [t.detach().float().requires_grad_() for t in (states, weight)]
    expected = F.cross_entropy(exact[0] @ exact[1].T, labels, reduction="sum", label_smoothing=smoothing)
    (expected / 250).backward()
    tight = precision == torch.float32
    assert float(nats.detach()) == pytest.approx(float(expected.detach()), rel=1e-5 if tight else 5e-3)
    for mine, theirs in zip((states, weight), exact, strict=True):
        assert mine.grad is not None and theirs.grad is not None
        difference = (mine.grad.float() - theirs.grad).norm() / theirs.grad.norm()
        assert difference < (1e-5 if tight else 0.05)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_label_of_no_probability_costs_what_it_should(door: LinearCrossEntropy, precision: torch.dtype) -> None:
    states, weight = torch.ones(1, 1, dtype=precision), torch.tensor([[0.0], [300.0]], dtype=precision)
    assert float(door(states, weight, torch.tensor([0]))[0]) == pytest.approx(300, rel=1e-3)


def plainly(logits: torch.Tensor, labels: torch.Tensor, smoothing: float, emphasis: Emphasis) -> torch.Tensor:
    """w · ((1 − s) · (1 − p)^γ · (−ln p) + s · mean(−ln p of all)) by autograd, summed over the labels that count."""
    real = labels != IGNORED
    log_p = logits[real].log_softmax(-1)
    mine = log_p.gather(1, labels[real, None]).squeeze(1)
    weight = torch.ones(logits.shape[1]) if emphasis.weights is None else emphasis.weights
    others = (1 - mine.exp()).clamp(min=1e-12)
    each = (1 - smoothing) * others**emphasis.focal * -mine - smoothing * log_p.mean(-1)
    return (weight[labels[real]] * each).sum()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("focal", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_emphasis_in_value_and_gradients(
    door: LinearCrossEntropy,
    precision: torch.dtype,
    weighted: bool,
    focal: float,
    smoothing: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loss, "CHUNK_LOGITS", 64 * 300)
    draw = torch.Generator().manual_seed(0)
    states = (torch.randn(250, 32, generator=draw) * 3).to(precision).requires_grad_()
    weight = (torch.randn(300, 32, generator=draw) / 6).to(precision).requires_grad_()
    labels = torch.randint(0, 300, (250,), generator=draw)
    with torch.no_grad():
        labels[:120] = (states @ weight.T)[:120].argmax(-1)
    labels[::9] = IGNORED
    emphasis = Emphasis(torch.rand(300, generator=draw) * 3 if weighted else None, focal)
    minimised, nats = door(states, weight, labels, smoothing, emphasis)
    (minimised / 250).backward()
    exact = [t.detach().float().requires_grad_() for t in (states, weight)]
    logits = exact[0] @ exact[1].T
    expected = plainly(logits, labels, smoothing, emphasis)
    (expected / 250).backward()
    tight = precision == torch.float32
    assert float(minimised.detach()) == pytest.approx(float(expected.detach()), rel=1e-5 if tight else 5e-3)
    plain = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
    assert float(nats) == pytest.approx(float(plain.detach()), rel=1e-5 if tight else 5e-3)
    for mine, theirs in zip((states, weight), exact, strict=True):
        assert mine.grad is not None and theirs.grad is not None
        difference = (mine.grad.float() - theirs.grad).norm() / theirs.grad.norm()
        assert difference < (1e-4 if tight else 0.05)


def test_weights_without_smoothing_are_those_of_torch(door: LinearCrossEntropy) -> None:
    draw = torch.Generator().manual_seed(2)
    states, weight = torch.randn(40, 8, generator=draw), torch.randn(20, 8, generator=draw)
    labels, weights = torch.randint(0, 20, (40,), generator=draw), torch.rand(20, generator=draw)
    mine, _ = door(states, weight, labels, 0.0, Emphasis(weights))
    theirs = F.cross_entropy(states @ weight.T, labels, weights, reduction="sum")
    assert float(mine) == pytest.approx(float(theirs), rel=1e-5)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("focal", [0.1, 1.0, 3.0])
def test_a_focal_loss_is_finite_where_a_label_is_certain_or_impossible(
    door: LinearCrossEntropy, precision: torch.dtype, focal: float
) -> None:
    states = torch.ones(2, 1, dtype=precision).requires_grad_()
    weight = torch.tensor([[0.0], [300.0]], dtype=precision, requires_grad=True)
    minimised, _ = door(states, weight, torch.tensor([0, 1]), 0.0, Emphasis(None, focal))
    minimised.backward()
    assert float(minimised.detach()) == pytest.approx(300, rel=1e-3)  # the impossible one counts whole, the other not
    assert states.grad is not None and weight.grad is not None
    assert states.grad.flatten().tolist() == pytest.approx([300, 0], rel=1e-2)
    assert bool(weight.grad.isfinite().all())
