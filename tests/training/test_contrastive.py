"""The own source against another's: the formula with its gradients, the partners, and what it teaches."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sourcewise.data.batches import IGNORED
from sourcewise.model.loss import LinearCrossEntropy
from sourcewise.training.contrastive import Partners, contrastive

WIDTH, VOCABULARY = 6, 11


def states(batch: int = 3, time: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    own, other = (torch.randn(batch * time, WIDTH, requires_grad=True) for _ in range(2))
    matrix = torch.randn(VOCABULARY, WIDTH, requires_grad=True)
    labels = torch.randint(0, VOCABULARY, (batch, time))
    labels[1, 3:] = IGNORED
    return own, other, matrix, labels


@pytest.mark.parametrize("margin", [0.01, 0.5, 3.0])
def test_it_is_the_hinge_of_the_formula(margin: float) -> None:
    own, other, matrix, labels = states()

    def nats(of: torch.Tensor) -> torch.Tensor:
        logits = (of @ matrix.T).view(*labels.shape, -1).transpose(1, 2)
        return F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none").sum(1)

    wanted = margin * (labels != IGNORED).sum(1)
    expected = (wanted - (nats(other) - nats(own))).clamp(min=0).sum()
    found = contrastive(LinearCrossEntropy(), own, other, matrix, labels, margin)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-4, abs=1e-4)
    for mine, theirs in zip(
        *(torch.autograd.grad(loss, (own, other, matrix)) for loss in (found, expected)), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-3)


def test_an_example_that_gains_enough_teaches_nothing() -> None:
    own, _, matrix, labels = states()
    both = torch.autograd.grad(contrastive(LinearCrossEntropy(), own, own.detach(), matrix, labels, -1.0), own)[0]
    assert not both.any()


def examples(sizes: list[int], parts: tuple[int, ...] = ()) -> SimpleNamespace:
    cuts = np.split(np.array(sizes), np.cumsum(parts or (len(sizes),))[:-1])
    return SimpleNamespace(parts=[Part(lengths) for lengths in cuts])


class Part:
    """What is asked of an Encoded."""

    def __init__(self, lengths: np.ndarray) -> None:
        self.source_lengths = lengths

    def __len__(self) -> int:
        return len(self.source_lengths)


def test_a_partner_is_another_of_like_length_and_of_the_same_task() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 500, 700).tolist()
    partners = Partners(examples(lengths, (300, 400)), seed=1)  # type: ignore[arg-type]
    found = partners(list(range(700)), epoch=0)
    assert (found != np.arange(700)).all()
    assert ((found < 300) == (np.arange(700) < 300)).all()
    assert np.abs(np.array(lengths)[found] - lengths).mean() < 40
    assert (partners([5, 650], 0) == found[[5, 650]]).all()  # of the example alone
    assert (partners(list(range(700)), epoch=1) != found).mean() > 0.8


def test_the_first_the_last_and_the_lonely() -> None:
    two = Partners(examples([3, 9]), seed=0)  # type: ignore[arg-type]
    assert all(two([0, 1], epoch).tolist() == [1, 0] for epoch in range(20))
    assert Partners(examples([3]), seed=0)([0], 0).tolist() == [0]  # type: ignore[arg-type]
