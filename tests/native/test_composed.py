"""What is made of torch's operations in another order gives what the plain modules give."""

from __future__ import annotations

import pytest
import torch

from sourcewise.model.blocks.positions import SinusoidalPositions
from sourcewise.native.install import install
from sourcewise.native.training import composed
from sourcewise.native.training.draws import dropout_seed
from sourcewise.native.training.lookups import lookups, put_lookups


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_the_gradient_of_rmsnorm_is_its_own(precision: torch.dtype, tolerance: float, transposed: bool) -> None:
    torch.manual_seed(0)
    norm = torch.nn.RMSNorm(32, 1e-6)
    torch.nn.init.normal_(norm.weight, 1, 0.3)
    norm = norm.to(precision)
    install(norm)
    x = torch.randn(5, 32, 7).transpose(1, 2) if transposed else torch.randn(5, 7, 32)
    x = x.to(precision).detach().requires_grad_()
    grad = torch.randn(5, 7, 32).to(precision)
    norm(x).backward(grad)
    exact, weight = x.detach().double().requires_grad_(), norm.weight.detach().double().requires_grad_()
    (exact * (exact.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt() * weight).backward(grad.double())
    assert x.grad is not None and norm.weight.grad is not None
    torch.testing.assert_close(x.grad.double(), exact.grad, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(norm.weight.grad.double(), weight.grad, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.999])
def test_dropout_drops_its_share_keeps_the_mean_and_bars_the_same_gradients(precision: torch.dtype, p: float) -> None:
    torch.manual_seed(1)
    x = torch.ones(400, 500, dtype=precision, requires_grad=True)
    for out in (composed.add_dropped(None, x, p), composed.add_dropped(torch.zeros_like(x), x, p)):
        share = min(max(1, round(p * 256)), 255) / 256  # p in steps of 1/256
        assert float((out == 0).float().mean()) == pytest.approx(share, abs=0.005)
        assert float(out.detach().float().mean()) == pytest.approx(1, abs=0.15 if p > 0.9 else 0.01)
        (grad,) = torch.autograd.grad(out.sum(), x)
        torch.testing.assert_close(grad, out.detach())


def test_positions_do_not_depend_on_how_the_table_grew() -> None:
    first, second = SinusoidalPositions(30), SinusoidalPositions(30)
    for length in (70, 200, 900):
        second(torch.zeros(1, length, 30))
    whole = first(torch.zeros(1, 1000, 30))
    assert torch.equal(whole, second(torch.zeros(1, 1000, 30)))
    assert torch.equal(whole[:, 500:503], second(torch.zeros(1, 3, 30), 500))


def test_the_gradient_of_an_embedding_loses_no_frequent_token() -> None:
    layer = torch.nn.Embedding(50, 16).bfloat16()
    install(layer)
    tokens = torch.randint(0, 50, (40, 30), generator=torch.Generator().manual_seed(0))
    tokens[:, ::2] = 7  # in bf16, 600 rows added one by one stop adding up
    grad = torch.rand(40, 30, 16, generator=torch.Generator().manual_seed(1)).bfloat16()
    with lookups() as found:
        (by_vectors,) = torch.autograd.grad(layer(tokens), [found[0].vectors], grad)
    other = torch.full((50, 16), 3.0).bfloat16()
    alone, added = (put_lookups(found, [by_vectors], layer.weight, to) for to in (None, other.clone()))
    expected = torch.zeros(50, 16).index_add_(0, tokens.flatten(), grad.flatten(0, 1).float())
    torch.testing.assert_close(alone.float(), expected, rtol=2**-8, atol=0)
    torch.testing.assert_close(added.float(), expected + other, rtol=2**-8, atol=0)


@pytest.mark.parametrize("p", [0.0, 0.3])
def test_a_dropout_that_is_let_in_draws_from_its_seed(p: float) -> None:
    layer, x = torch.nn.Dropout(p), torch.ones(50, 60)
    install(layer)
    with dropout_seed(5):
        first = layer(x)
    with dropout_seed(5):
        assert torch.equal(first, layer(x))
    assert torch.equal(layer.eval()(x), x) and torch.equal(first, x) == (p == 0)
