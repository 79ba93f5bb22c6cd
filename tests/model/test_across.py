"""Products across the tokens of a batch against torch in fp32."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sourcewise.compiled import _processor, machine_code
from sourcewise.model.kernels.across import CODE, FEW, NEEDS, across, linear, takes
from sourcewise.model.layers import Linear


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def needs_tiles() -> None:
    if machine_code(CODE.with_name("kernels.cpp")) is None or not set(NEEDS) <= set(_processor().split()):
        pytest.skip("no C++ compiler, or a processor without AMX")
    assert machine_code(CODE, NEEDS) is not None, "it does not compile"
    if not takes(random(FEW, 32), random(FEW, 32)):
        pytest.skip("the system does not let this process use tiles")


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 700),
    p=st.integers(1, 9),
    q=st.sampled_from([1, 2, 5, 16, 17, 33]),
    apart=st.sampled_from([0, 8]),
    seed=st.integers(0, 99),
)
def test_it_is_the_product_in_fp32_rounded_once(rows: int, p: int, q: int, apart: int, seed: int) -> None:
    needs_tiles()
    a = random(rows, 32 * p + apart, seed=seed)[:, apart:]
    b = random(rows, 32 * q, seed=seed + 1)
    expected = a.float().T @ b.float()
    for found, wanted in ((across(a, b), expected), (across(b, a), expected.T)):
        torch.testing.assert_close(found.float(), wanted, rtol=2**-8, atol=1e-4 * rows**0.5)


def test_rows_that_are_padding_add_nothing() -> None:
    needs_tiles()
    a, b = random(300, 64), random(300, 96, seed=1)
    a[290:] = 0
    assert torch.equal(across(a, b), across(a[:290], b[:290]))


def test_what_is_not_finite_stays_so() -> None:
    needs_tiles()
    a, b = random(300, 32), random(300, 32, seed=1)
    a[7, 3], b[9, 5] = float("nan"), float("inf")
    found = across(a, b)
    assert found[3].isnan().all() and not found[:, 5].isfinite().any()
    assert found.isfinite().sum() == 31 * 31


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("shape", [(12, 70, 64), (FEW, 64), (3, 64)])
def test_a_layer_has_torchs_output_and_gradients(shape: tuple[int, ...], biased: bool) -> None:
    results = []
    layer = Linear(64, 96, bias=biased).bfloat16()
    weights = [p.detach().clone() for p in layer.parameters()]
    for ours in (True, False):
        x = random(*shape, seed=2).requires_grad_()
        given_ = [w.clone().requires_grad_() for w in weights]
        out = (linear if ours else F.linear)(x, given_[0], given_[1] if biased else None)
        (out.float() ** 2).sum().backward()
        assert x.grad is not None
        results.append([out.detach(), x.grad, *(w.grad for w in given_)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found.float(), expected.float(), rtol=2**-6, atol=2**-4)


def test_torch_is_left_what_it_does_better() -> None:
    wide = random(FEW, 64)
    assert not takes(wide.float(), wide.float())
    assert not takes(wide[: FEW - 1], wide[: FEW - 1])
    assert not takes(wide[:, :40], wide)
    torch.set_num_threads(2)
    assert not takes(wide, wide)
