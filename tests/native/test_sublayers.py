"""Parts of a block in tiles against the same in torch's fp32."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sourcewise.data.batches import IGNORED
from sourcewise.data.layout import Layout
from sourcewise.model.blocks.sublayers import FeedForward, Residual, SelfAttention
from sourcewise.native.codes import TILES
from sourcewise.native.install import install
from sourcewise.native.training import loss, sublayers, tiles

EPS = 1e-6


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="module")
def needs_tiles() -> None:
    if (lacking := TILES.why_not()) is not None:
        assert "failed" not in lacking, lacking
        pytest.skip(lacking)
    if not tiles.has_tiles():
        pytest.skip("the system does not let this process use tiles")
    for code in (sublayers.CODE, loss.CODE):
        assert tiles.tiled(code) is not None, f"{code.name} does not compile"


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale).bfloat16()


def compare(
    ours: Callable[..., Tensor], exact: Callable[..., Tensor], given: list[Tensor], within: float = 0.02
) -> None:
    """Outputs and gradients by all that is given, in bf16 and in fp32."""
    results = []
    for function, kind in ((ours, torch.bfloat16), (exact, torch.float32)):
        inputs = [each.detach().clone().to(kind).requires_grad_() for each in given]
        out = function(*inputs)
        grad = random(*out.shape, seed=9).to(kind)
        results.append([out, *torch.autograd.grad(out, inputs, grad)])
    for found, expected in zip(*results, strict=True):
        assert found.shape == expected.shape
        difference = (found.float() - expected).norm() / expected.norm()
        assert difference < 0.02, difference


rows_and_widths = {
    "rows": st.integers(1, 1100),
    "width": st.sampled_from([32, 64, 96, 256]),
    "outputs": st.sampled_from([32, 160, 512, 544]),
    "seed": st.integers(0, 99),
}


@settings(max_examples=25, deadline=None)
@given(**rows_and_widths, biased=st.booleans(), normed=st.booleans())
def test_entering_is_norm_and_product(
    rows: int, width: int, outputs: int, seed: int, biased: bool, normed: bool
) -> None:
    given = [random(rows, width, seed=seed), random(outputs, width, seed=seed + 1, scale=width**-0.5)]
    given += [1 + random(width, seed=seed + 2, scale=0.2)] * normed + [random(outputs, seed=seed + 3)] * biased

    def unpacked(rest: tuple[Tensor, ...]) -> tuple[Tensor | None, Tensor | None]:
        return rest[0] if normed else None, rest[-1] if biased else None

    def ours(x: Tensor, weight: Tensor, *rest: Tensor) -> Tensor:
        scale, bias = unpacked(rest)
        out, beside = sublayers.entering(x, scale, weight, bias, EPS)
        return torch.cat((out, 2 * beside), dim=-1)  # both have gradients

    def exact(x: Tensor, weight: Tensor, *rest: Tensor) -> Tensor:
        scale, bias = unpacked(rest)
        into = x if scale is None else F.rms_norm(x, (width,), scale, EPS)
        return torch.cat((F.linear(into, weight, bias), 2 * x), dim=-1)

    compare(ours, exact, given)


@settings(max_examples=25, deadline=None)
@given(**rows_and_widths, biased=st.booleans())
def test_leaving_is_product_and_residual(rows: int, width: int, outputs: int, seed: int, biased: bool) -> None:
    given = [random(rows, outputs, seed=seed), random(rows, width, seed=seed + 1)]
    given += [random(outputs, width, seed=seed + 2, scale=width**-0.5)] + [random(outputs, seed=seed + 3)] * biased
    compare(
        lambda x, a, weight, bias=None: sublayers.leaving(x, a, weight, bias, 0.0, 0),
        lambda x, a, weight, bias=None: x + F.linear(a, weight, bias),
        given,
    )


@settings(max_examples=25, deadline=None)
@given(**rows_and_widths)
def test_the_feedforward_is_that_of_torch(rows: int, width: int, outputs: int, seed: int) -> None:
    given = [random(rows, width, seed=seed), 1 + random(width, seed=seed + 1, scale=0.2)]
    given += [random(outputs, width, seed=seed + 2, scale=width**-0.5)]
    given += [random(width, outputs, seed=seed + 3, scale=outputs**-0.5)]

    def exact(x: Tensor, scale: Tensor, wi: Tensor, wo: Tensor) -> Tensor:
        normed = F.rms_norm(x, (width,), scale, EPS).bfloat16().float()  # rounded as ours: relu cuts alike
        normed = normed.detach() + F.rms_norm(x, (width,), scale, EPS) - F.rms_norm(x, (width,), scale, EPS).detach()
        return x + F.relu(normed @ wi.T) @ wo.T

    compare(lambda *all_: sublayers.feedforward(*all_, EPS, (0.0, 0.0), (0, 0)), exact, given)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_what_is_dropped_has_no_gradient_and_the_rest_is_scaled(p: float) -> None:
    x, a = torch.zeros(300, 64).bfloat16().requires_grad_(), torch.ones(300, 32).bfloat16().requires_grad_()
    weight = torch.full((64, 32), 1 / 32).bfloat16().requires_grad_()
    out = sublayers.leaving(x, a, weight, None, p, 7)
    stays = out != 0
    assert abs(stays.float().mean().item() - (1 - p)) < 0.02
    torch.testing.assert_close(out[stays].float().mean(), torch.tensor(1 / (1 - p)), rtol=0.01, atol=0)
    dx, da, dweight = torch.autograd.grad(out, (x, a, weight), torch.ones_like(out))
    kept = stays.float() / (1 - p)
    assert (dx == 1).all()
    torch.testing.assert_close(da.float(), (kept @ weight.float()).detach(), rtol=0.02, atol=0.01)
    torch.testing.assert_close(dweight.float(), (kept.T @ a.float()).detach(), rtol=0.02, atol=0.01)
    assert not torch.equal(out, sublayers.leaving(x, a, weight, None, p, 8))


def test_what_is_dropped_has_no_pattern() -> None:
    p, x = 0.25, torch.zeros(2000, 512).bfloat16()
    weight = torch.full((512, 32), 1 / 32).bfloat16()
    out = sublayers.leaving(x, torch.ones(2000, 32).bfloat16(), weight, None, p, 2**40 + 3)
    stays = (out != 0).float()
    for axis, count in ((0, 2000), (1, 512)):
        assert stays.mean(axis).std() < 1.2 * (p * (1 - p) / count) ** 0.5
    beside = (stays[:, 1:] * stays[:, :-1]).mean() - stays.mean() ** 2
    below = (stays[1:] * stays[:-1]).mean() - stays.mean() ** 2
    assert abs(beside) < 0.001 and abs(below) < 0.001


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 1300),
    width=st.sampled_from([32, 64, 256]),
    size=st.integers(2, 700),
    scale=st.sampled_from([0.1, 1.0, 8.0, 30.0]),
    smoothing=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 99),
)
def test_the_loss_has_the_nats_and_gradients_of_its_logits(
    rows: int, width: int, size: int, scale: float, smoothing: float, seed: int
) -> None:
    states, weight = random(rows, width, seed=seed), random(size, width, seed=seed + 1, scale=scale * width**-0.5)
    labels = torch.randint(0, size, (rows,), generator=torch.Generator().manual_seed(seed))
    labels[seed % rows :: 7] = IGNORED
    nats, dstates, dweight = loss.linear_cross_entropy(states, weight, labels, smoothing, True)
    exact = (states.float() @ weight.float().T).bfloat16().float().requires_grad_()  # logits are rounded
    expected = F.cross_entropy(exact, labels, label_smoothing=smoothing, reduction="none")
    torch.testing.assert_close(nats, expected.detach(), rtol=1e-2, atol=1e-2 * max(scale, 1))
    expected.sum().backward()
    assert exact.grad is not None and dstates is not None and dweight is not None
    by_logits = exact.grad + smoothing / size * (labels != IGNORED)[:, None]
    for found, wanted in ((dstates, by_logits @ weight.float()), (dweight, by_logits.T @ states.float())):
        assert (found.float() - wanted).norm() <= 0.02 * wanted.norm() + 1e-3
    alone, none, _ = loss.linear_cross_entropy(states, weight, labels, smoothing, False)
    assert torch.equal(alone, nats) and none is None


def test_a_loss_that_is_no_number_stays_none() -> None:
    states, weight, labels = random(40, 32), random(50, 32, seed=1), torch.arange(40)
    for bad in (float("nan"), float("inf")):
        spoiled = states.clone()
        spoiled[3, 4] = bad
        nats, *_ = loss.linear_cross_entropy(spoiled, weight, labels, 0.0, True)
        assert not nats[3].isfinite() and nats.isfinite().sum() == 39


def test_torch_is_left_what_it_does_better() -> None:
    x, weight = random(sublayers.FEW, 64), random(32, 64)
    assert sublayers.takes(x, weight)
    assert not sublayers.takes(x.float(), weight) and not sublayers.takes(x, weight.float())
    assert not sublayers.takes(x[:-1], weight)
    assert not sublayers.takes(x[:, :40], weight) and not sublayers.takes(x, weight[:20])
    with torch.no_grad():
        assert not sublayers.takes(x, weight)
    torch.set_num_threads(2)
    assert not sublayers.takes(x, weight)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("kind", ["relu", "gated-gelu", "attention"])
@pytest.mark.parametrize("watched", [False, True])
def test_a_sublayer_is_the_same_either_way(norm_first: bool, kind: str, watched: bool) -> None:
    torch.manual_seed(0)
    part = SelfAttention(64, 2, 32, 0.1) if kind == "attention" else FeedForward(64, 96, kind, 0.1)
    block = torch.nn.ModuleList([Residual(0.1, norm_first=norm_first), torch.nn.RMSNorm(64, EPS), part])
    block.bfloat16().eval()
    met: list[int] = []
    if watched:
        part.register_forward_hook(lambda *_: met.append(1))
    given = (Layout.whole(5, 60), None) if kind == "attention" else ()
    results = []
    for ours in (False, True):
        if ours:
            install(block)
        x = random(5, 60, 64, seed=2).requires_grad_()
        y = block[0](x, block[1], part, *given)
        found = torch.autograd.grad(y, [x, *block.parameters()], random(5, 60, 64, seed=3))
        results.append([y, *found])
    assert len(met) == (2 if watched else 0), "who hooks a layer sees it called"
    for one, other in zip(*results, strict=True):
        assert (one.float() - other.float()).norm() < 0.06 * other.float().norm()  # relu cuts near zero
