"""The compiled loss, norm and dropout against torch in fp32."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sourcewise.data.batches import IGNORED
from sourcewise.model.loss import LinearCrossEntropy
from sourcewise.native.install import install
from sourcewise.native.training import kernels

if not kernels.takes(torch.zeros(1, dtype=torch.bfloat16)):
    pytest.skip("no C++ compiler, or a processor without AVX2", allow_module_level=True)

ROUNDED = 2**-7  # two roundings to bf16
DOOR = LinearCrossEntropy()
install(DOOR)


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale).bfloat16()


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.float(), expected.float(), rtol=2 * ROUNDED, atol=2 * ROUNDED)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 9),
    size=st.integers(2, 70),
    scale=st.sampled_from([0.1, 1.0, 8.0, 40.0]),
    smoothing=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 99),
)
def test_the_loss_and_its_gradient_are_those_of_torch(
    rows: int, size: int, scale: float, smoothing: float, seed: int
) -> None:
    logits = random(rows, size, seed=seed, scale=scale)
    labels = torch.randint(0, size, (rows,), generator=torch.Generator().manual_seed(seed))
    labels[seed % rows] = IGNORED if seed % 3 == 0 else labels[seed % rows]
    exact = logits.float().requires_grad_()
    expected = F.cross_entropy(exact, labels, label_smoothing=smoothing, reduction="none")
    expected.sum().backward()
    gradient = logits.clone()
    nats = kernels.cross_entropy_(gradient, labels, smoothing)
    torch.testing.assert_close(nats, expected.detach(), rtol=1e-4, atol=1e-5 * scale)
    even = smoothing / size * (labels != IGNORED)[:, None]
    assert exact.grad is not None
    torch.testing.assert_close(gradient.float() - even, exact.grad, rtol=ROUNDED, atol=1e-4)


@pytest.mark.parametrize("size", [1, 15, 16, 33, 1000])
@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_how_far_two_passes_are_apart_and_its_gradients_are_those_of_the_formula(size: int, scale: float) -> None:
    logits = [random(7, size, seed=seed, scale=scale) for seed in (1, 2)]
    exact = [each.float().requires_grad_() for each in logits]
    log_p, log_q = (each.log_softmax(-1) for each in exact)
    expected = 0.5 * ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)
    expected.sum().backward()
    nats = kernels.divergence_(*logits)
    torch.testing.assert_close(nats, expected.detach(), rtol=1e-4, atol=1e-5 * scale)
    for found, of in zip(logits, exact, strict=True):
        assert of.grad is not None
        torch.testing.assert_close(found.float(), of.grad, rtol=ROUNDED, atol=1e-4 * scale)


def test_passes_that_are_no_numbers_stay_none() -> None:
    first, second = random(3, 20), random(3, 20, seed=1)
    first[1, 4] = float("nan")
    assert kernels.divergence_(first, second).isfinite().tolist() == [True, False, True]


def test_a_loss_that_is_no_number_stays_none() -> None:
    for bad in (float("nan"), float("inf")):
        logits = random(3, 20)
        logits[1, 4] = bad
        nats = kernels.cross_entropy_(logits, torch.tensor([0, 1, 2]), 0.0)
        assert nats.isfinite().tolist() == [True, False, True]


def test_an_entry_that_cannot_be_costs_nothing() -> None:
    logits = random(2, 20)
    logits[:, 7] = float("-inf")
    nats = kernels.cross_entropy_(logits, torch.tensor([0, 1]), 0.0)
    assert nats.isfinite().all() and (logits[:, 7] == 0).all()


def test_the_projected_loss_has_the_gradients_of_fp32() -> None:
    states, weight = random(70, 32, seed=1), random(90, 32, seed=2, scale=0.2)
    labels = torch.arange(70).where(torch.arange(70) % 9 != 0, torch.tensor(IGNORED))
    results = []
    for kind in (torch.bfloat16, torch.float32):
        x, w = (t.detach().clone().to(kind).requires_grad_() for t in (states, weight))
        loss, _ = DOOR(x, w, labels, 0.1)
        loss.backward()
        results.append((loss, x.grad, w.grad))
    for found, expected in zip(*results, strict=True):
        assert found is not None and expected is not None
        difference = (found.float() - expected).norm() / expected.norm()
        assert difference < 0.01


@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 33), (1, 256)])
def test_norm_and_its_gradients_are_those_of_torch(shape: tuple[int, ...]) -> None:
    norm = nn.RMSNorm(shape[-1], 1e-6).bfloat16()
    install(norm)
    norm.weight.data = 1 + random(shape[-1], seed=3, scale=0.3)
    x = random(*shape, seed=4, scale=2).requires_grad_()
    out, grad = norm(x), random(*shape, seed=5)
    out.backward(grad)
    exact, weight = x.detach().float().requires_grad_(), norm.weight.detach().float().requires_grad_()
    expected = F.rms_norm(exact, (shape[-1],), weight, norm.eps)
    expected.backward(grad.float())
    assert x.grad is not None and exact.grad is not None
    assert norm.weight.grad is not None and weight.grad is not None
    close(out, expected)
    close(x.grad, exact.grad)
    close(norm.weight.grad, weight.grad)


def test_a_tensor_that_is_not_contiguous_is_read_as_it_is() -> None:
    x = random(6, 4, 10).transpose(0, 1)
    norm = nn.RMSNorm(10, 1e-6).bfloat16()
    install(norm)
    assert torch.equal(norm(x), norm(x.contiguous()))
    first = kernels.add_dropped(x, x, 0.3, 1)
    assert torch.equal(first, kernels.add_dropped(x.contiguous(), x.contiguous(), 0.3, 1))


@pytest.mark.parametrize("p", [0.05, 0.3, 0.9])
def test_dropout_keeps_its_share_and_scales_it(p: float) -> None:
    x = torch.ones(200, 1000).bfloat16()
    out = kernels.add_dropped(None, x, p, 7)
    stays = out != 0
    assert abs(stays.float().mean().item() - (1 - p)) < 0.005
    assert torch.equal(out[stays], torch.full_like(out[stays], 1 / (1 - p)))
    along, across = stays.float().mean(0), stays.float().mean(1)  # no pattern in rows or columns
    assert along.std() < 1.2 * (p * (1 - p) / 200) ** 0.5 and across.std() < 1.2 * (p * (1 - p) / 1000) ** 0.5
    assert not torch.equal(out, kernels.add_dropped(None, x, p, 8))


@pytest.mark.parametrize("kind", ["alone", "added", "relu"])
def test_gradients_pass_where_dropout_let_values_pass(kind: str) -> None:
    x, grad = random(30, 40, seed=1).requires_grad_(), random(30, 40, seed=2)
    base = torch.zeros(30, 40).bfloat16().requires_grad_()
    if kind == "relu":
        out = kernels.relu_dropout(x, 0.25, 3)
    else:
        out = kernels.add_dropped(None, x, 0.25, 3) if kind == "alone" else kernels.add_dropped(base, x, 0.25, 3)
    out.backward(grad)
    assert x.grad is not None
    passed = out.detach() != 0
    close(out.detach(), torch.where(passed, x.detach().float() / 0.75, 0))
    close(x.grad, torch.where(passed, grad.float() / 0.75, 0))
    assert 0.6 < (passed[x.detach() > 0]).float().mean() < 0.9
    if kind == "relu":
        assert not passed[x.detach() <= 0].any()
    if kind == "added":
        assert base.grad is not None and torch.equal(base.grad, grad)
