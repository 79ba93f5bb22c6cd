"""Compiled attention against torch's in fp32, and heads that lie where they were projected."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sourcewise.data.layout import Layout
from sourcewise.model.attention import MASKED, Attention, SplitHeads
from sourcewise.native.install import install
from sourcewise.native.training import attention as compiled
from sourcewise.native.training.draws import dropout_seed
from sourcewise.native.training.tiles import has_tiles

D_KV = 32

if compiled._found() is None:
    pytest.skip("no C++ compiler, or a processor without AVX2", allow_module_level=True)


@pytest.fixture(params=["vectors", "tiles"], autouse=True, scope="module")
def code(request: pytest.FixtureRequest) -> Iterator[None]:
    """What multiplies: each in turn."""
    if request.param == "tiles" and not has_tiles():
        pytest.skip("a processor without AMX")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "THREADS", torch.get_num_threads())
        if request.param == "vectors":
            patch.setattr(compiled, "tiled", lambda _: None)
        compiled._found.cache_clear()
        yield
    compiled._found.cache_clear()


Case = tuple[Tensor, Tensor, Tensor | None]  # queries and keys and values projected, as split_heads takes them; bias


def random(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale).bfloat16()


def case(batch: int, heads: int, queries: int, keys: int, kind: str, seed: int) -> Case:
    q = random(batch, queries, heads * D_KV, seed=seed)
    kv = random(batch, keys, 2 * heads * D_KV, seed=seed + 1)
    shapes = {"full": (batch, heads, queries, keys), "heads": (heads, queries, keys), "padding": (batch, 1, 1, keys)}
    bias = None if kind == "none" else random(*shapes[kind], seed=seed + 2).float()
    if bias is not None and kind == "padding":
        bias[:, ..., keys // 2 + 1 :] = MASKED
    return q, kv, bias


def split(x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    module = SplitHeads(parts, heads)
    install(module)
    found: tuple[Tensor, ...] = module(x)
    return found


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, p: float = 0.0) -> Tensor:
    module = Attention(p)
    install(module)
    own, other = (Layout.whole(len(each), each.shape[2]) for each in (query, key))
    found: Tensor = module(query, key, value, own, other, bias)
    return found


def read(q: Tensor, kv: Tensor, bias: Tensor | None, heads: int, p: float = 0.0) -> Tensor:
    """What is read, (batch, queries, heads × D_KV)."""
    (query,), (key, value) = split(q, 1, heads), split(kv, 2, heads)
    return attend(query, key, value, bias, p).transpose(1, 2).flatten(2)


def leaves(given: Case, kind: torch.dtype) -> Case:
    q, kv, bias = given
    fresh = None if bias is None else bias.clone().requires_grad_()
    return q.clone().to(kind).requires_grad_(), kv.clone().to(kind).requires_grad_(), fresh


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    heads=st.integers(1, 3),
    queries=st.integers(1, 70),
    keys=st.integers(1, 70),
    kind=st.sampled_from(["none", "full", "heads", "padding"]),
    seed=st.integers(0, 99),
)
def test_what_is_read_and_its_gradients_are_those_of_torch(
    batch: int, heads: int, queries: int, keys: int, kind: str, seed: int
) -> None:
    given_, grad = case(batch, heads, queries, keys, kind, seed), random(batch, queries, heads * D_KV, seed=seed + 3)
    results = []
    for precision in (torch.bfloat16, torch.float32):
        q, kv, bias = leaves(given_, precision)
        out = read(q, kv, bias, heads)
        out.backward(grad.to(precision))
        results.append([out.detach(), q.grad, kv.grad, None if bias is None else bias.grad])
    for found, expected in zip(*results, strict=True):
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            assert (found.float() - expected).norm() < 0.01 * expected.norm() + 1e-5


def test_longer_sequences_and_wider_heads_too() -> None:
    x, grad = random(2, 50, 3 * 2 * 96, seed=0), random(2, 2, 50, 96, seed=1)
    results = []
    for precision in (torch.bfloat16, torch.float32):
        whole = x.clone().to(precision).requires_grad_()
        out = attend(*split(whole, 3, 2), None)
        out.backward(grad.to(precision))
        assert whole.grad is not None
        results.append((out.detach(), whole.grad))
    for found, expected in zip(*results, strict=True):
        assert (found.float() - expected).norm() < 0.01 * expected.norm()


def test_dropout_bars_gradients_where_it_barred_weights() -> None:
    """With one key a head reads its value or nothing, times 1 / (1 − p)."""
    q, kv, _ = leaves(case(64, 2, 16, 1, "none", 5), torch.bfloat16)
    with dropout_seed(1):
        out = read(q, kv, None, 2, p=0.25)
    value = kv.detach()[:, :, 2 * D_KV :]
    stays = out.detach() != 0
    torch.testing.assert_close(
        out.detach(), torch.where(stays, (value.float() / 0.75).bfloat16(), 0), rtol=0.01, atol=0
    )
    by_head = stays.view(64, 16, 2, D_KV)
    assert (by_head.any(-1) == by_head.float().mean(-1).gt(0.9)).all()  # a weight is dropped, not an entry of a value
    assert 0.7 < by_head.any(-1).float().mean() < 0.8
    out.sum().backward()
    assert kv.grad is not None
    of_value = kv.grad[:, 0, 2 * D_KV :].view(64, 2, D_KV).float()
    torch.testing.assert_close(of_value[..., 0], by_head.any(-1).sum(1) / 0.75, rtol=0.01, atol=0)
    with dropout_seed(1):
        assert torch.equal(read(q, kv, None, 2, p=0.25), out)
    with dropout_seed(2):
        assert not torch.equal(read(q, kv, None, 2, p=0.25), out)


def test_heads_lie_where_they_were_projected() -> None:
    x = random(3, 7, 3 * 2 * D_KV, seed=1)
    parts = split(x, 3, 2)
    assert all(part.untyped_storage().data_ptr() == x.untyped_storage().data_ptr() for part in parts)
    for found, expected in zip(parts, SplitHeads(3, 2)(x), strict=True):
        assert torch.equal(found, expected)


def test_what_is_not_finite_stays_so() -> None:
    q, kv, _ = case(1, 1, 4, 4, "none", 0)
    q[0, 2, 3] = float("nan")
    assert read(q, kv, None, 1).isfinite().all(-1).tolist() == [[True, True, False, True]]
