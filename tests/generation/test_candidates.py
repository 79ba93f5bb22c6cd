"""The likeliest tokens, against torch's own top-k and logsumexp."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sourcewise.generation.candidates import logsumexp, top_k


@given(rows=st.integers(1, 5), size=st.integers(1, 400), count=st.integers(1, 12), seed=st.integers(0, 99))
def test_the_likeliest_are_those_of_a_sort(rows: int, size: int, count: int, seed: int) -> None:
    logits = torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))
    logits[logits > 1] = -torch.inf  # suppressed ones
    count = min(count, size)
    values, ids = top_k(logits, count)
    assert torch.equal(values, logits.topk(count).values)
    assert torch.equal(logits.gather(1, ids), values)
    assert all(len(set(row)) == count for row in ids.tolist())


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_normaliser_is_logsumexp(precision: torch.dtype) -> None:
    logits = (torch.randn(6, 500, generator=torch.Generator().manual_seed(0)) * 5).to(precision)
    expected = logits.double().logsumexp(-1, keepdim=True).float()
    top = logits.float().amax(-1, keepdim=True)
    close = {"atol": 1e-5 if precision == torch.float32 else 0.02, "rtol": 0}
    torch.testing.assert_close(logsumexp(logits.clone()), expected, **close)
    torch.testing.assert_close(logsumexp(logits.clone(), top), expected, **close)
