"""What a loss takes outputs for, where a model has learned nearly all: most labels are all but certain."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sourcewise.diagnosis.measures.objective import said_by


@pytest.mark.parametrize("sure", [0.0, 8.0, 16.0, 30.0])
@pytest.mark.parametrize("kind", ["logits", "log-probabilities"])
def test_labels_that_are_all_but_certain(sure: float, kind: str) -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, 20, (8, 6))
    out = torch.randn(8, 6, 20)
    out[1:] += sure * F.one_hot(labels[1:], 20)  # all but the first row
    out = (out if kind == "logits" else torch.log_softmax(out, -1)).requires_grad_()
    loss = F.cross_entropy if kind == "logits" else F.nll_loss
    loss(out.reshape(-1, 20), labels.reshape(-1)).backward()
    assert out.grad is not None
    said = said_by(out.detach(), out.grad)
    assert said is not None and said.form == kind
    assert torch.equal(said.labels[said.counts], labels[said.counts])


@pytest.mark.parametrize("given", ["scores", "probabilities", "log-probabilities"])
@pytest.mark.parametrize("smoothing", [0.1, 0.3])
def test_smoothing_by_kl_divergence_tells_what_it_was_given(given: str, smoothing: float) -> None:
    torch.manual_seed(0)
    size, padding = 20, 0
    labels = torch.randint(1, size, (8, 6))
    labels[:, 4:] = padding
    out = 3 * torch.randn(8, 6, size)
    out = {"scores": out, "probabilities": out.softmax(-1), "log-probabilities": out.log_softmax(-1)}[given]
    out = out.requires_grad_()
    wanted = torch.full_like(out, smoothing / (size - 2)).scatter_(-1, labels[..., None], 1 - smoothing)
    wanted[..., padding] = 0
    wanted[labels == padding] = 0
    (F.kl_div(out, wanted, reduction="sum") / 32).backward()
    assert out.grad is not None
    said = said_by(out.detach(), out.grad)
    assert said is not None and said.form == given
    assert torch.equal(said.counts, labels != padding)
    assert torch.equal(said.labels[said.counts], labels[said.counts])


def test_a_target_of_its_own_for_each_token_may_be_spread() -> None:
    torch.manual_seed(0)
    out = torch.randn(8, 6, 20).log_softmax(-1).requires_grad_()
    F.kl_div(out, torch.randn(8, 6, 20).softmax(-1), reduction="batchmean").backward()
    assert out.grad is not None
    said = said_by(out.detach(), out.grad)
    assert said is not None and said.form == "log-probabilities"


@pytest.mark.parametrize("size", [4, 8, 64])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("pooled", ["mean", "sum", "max", "relu", "last", "chosen", "weighed"])
def test_what_a_layer_weighs_is_no_vocabulary(size: int, seed: int, pooled: str) -> None:
    torch.manual_seed(seed)
    out = torch.randn(16, 7, size).requires_grad_()
    weight = torch.randn(size)
    if pooled == "weighed":
        weight = weight.abs()  # one sign for all, as the gradient of a loss of labels has
    pool = {
        "mean": lambda t: t.mean(1),
        "sum": lambda t: t.sum(1),
        "max": lambda t: t.max(1).values,
        "relu": lambda t: t.relu().mean(1),
        "last": lambda t: t[:, -1],
        "chosen": lambda t: (t * torch.randint(0, 2, (16, 7, 1))).sum(1),
        "weighed": lambda t: t.mean(1),
    }[pooled]
    scores = pool(out) @ weight
    F.binary_cross_entropy_with_logits(scores, torch.ones(16)).backward()  # what is made is to be judged right
    assert out.grad is not None
    assert said_by(out.detach(), out.grad) is None
