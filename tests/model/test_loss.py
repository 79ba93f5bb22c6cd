"""The chunked cross-entropy against torch's own, where probabilities are near 0, near 1 and in between."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sourcewise.data.batches import IGNORED
from sourcewise.model import loss
from sourcewise.model.loss import linear_cross_entropy


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("scale", [0.5, 4.0, 40.0])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_value_and_gradients(
    precision: torch.dtype, scale: float, smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "CHUNK_LOGITS", 64 * 300)  # several chunks
    draw = torch.Generator().manual_seed(0)
    states = (torch.randn(250, 32, generator=draw) * scale).to(precision).requires_grad_()
    weight = (torch.randn(300, 32, generator=draw) / 6).to(precision).requires_grad_()
    labels = torch.randint(0, 300, (250,), generator=draw)
    with torch.no_grad():
        labels[:120] = (states @ weight.T)[:120].argmax(-1)  # likely ones, too
    labels[::9] = IGNORED
    nats = linear_cross_entropy(states, weight, labels, smoothing)
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
def test_a_label_of_no_probability_costs_what_it_should(precision: torch.dtype) -> None:
    states, weight = torch.ones(1, 1, dtype=precision), torch.tensor([[0.0], [300.0]], dtype=precision)
    assert float(linear_cross_entropy(states, weight, torch.tensor([0]))) == pytest.approx(300, rel=1e-3)
