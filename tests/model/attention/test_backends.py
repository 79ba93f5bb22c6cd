"""Backends of attention are held to the one that is written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sourcewise.data.layout import Layout
from sourcewise.model.attention import BACKENDS, Attention, SplitHeads, choose, eager, merge_heads, padding_bias
from tests.model.networks import network, text_source

HEADS, D_KV = 2, 4
OWN, OTHER = Layout([3, 5, 1], 5), Layout([2, 4, 4], 4)


def heads(layout: Layout, seed: int) -> Tensor:
    x = torch.randn(len(layout), layout.width, HEADS * D_KV, generator=torch.Generator().manual_seed(seed))
    return SplitHeads(1, HEADS)(x)[0].requires_grad_()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("biased", [False, True])
def test_a_backend_reads_what_the_formula_says(backend: str, biased: bool) -> None:
    q, (k, v) = heads(OWN, 0), (heads(OTHER, seed) for seed in (1, 2))
    table = torch.randn(HEADS, 5, 4, generator=torch.Generator().manual_seed(3)).requires_grad_()
    bias = padding_bias(OTHER, q.device)
    assert bias is not None
    bias = bias + table if biased else bias
    read = BACKENDS[backend](q, k, v, OWN, OTHER, bias, nn.Dropout(0.0))
    expected = torch.zeros_like(read)
    for row, length in enumerate(OTHER.lengths.tolist()):
        scores = q[row] @ k[row, :, :length].transpose(1, 2) + (table[:, :, :length] if biased else 0)
        expected[row] = scores.softmax(-1) @ v[row, :, :length]
    torch.testing.assert_close(read, expected)
    leaves = [q, k, v, *([table] if biased else [])]
    for one, other in zip(*(torch.autograd.grad(out.square().sum(), leaves) for out in (read, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_heads_are_read_as_padded_ones(backend: str) -> None:
    own, other = OWN.compact(), OTHER.compact()
    q, (k, v) = heads(OWN, 0), (heads(OTHER, seed) for seed in (1, 2))
    packed = [layout.pack(x.transpose(1, 2)).transpose(0, 1) for layout, x in ((own, q), (other, k), (other, v))]
    table = torch.randn(HEADS, 5, 4)
    padding = padding_bias(OTHER, q.device)
    assert padding is not None
    padded = BACKENDS[backend](q, k, v, OWN, OTHER, padding + table, nn.Dropout(0.0))
    found = BACKENDS[backend](*packed, own, other, table, nn.Dropout(0.0))  # type: ignore[call-arg]
    torch.testing.assert_close(merge_heads(found), own.pack(merge_heads(padded)))
    weights = eager.weights(packed[0], packed[1], own, other, table)
    torch.testing.assert_close(weights.sum(-1)[0], torch.ones(HEADS, 5))
    assert not weights[0, :, :, 2:].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_are_dropped_in_training_alone(backend: str) -> None:
    module = Attention(0.5)
    module.backend = BACKENDS[backend]
    q, k = heads(OWN, 0), heads(OWN, 1)
    ones, whole = torch.ones_like(q), Layout.whole(3, 5)
    assert module(q, k, ones, whole, whole, None).unique().numel() > 3
    torch.testing.assert_close(module.eval()(q, k, ones, whole, whole, None), ones)


def test_a_network_is_given_its_backend_once() -> None:
    net, source, tokens = network().eval(), text_source([4, 2]), torch.tensor([[0, 5], [0, 7]])
    expected = net.decode(tokens, net.encode(source))
    choose(net, "sdpa")
    assert {m.backend for m in net.modules() if isinstance(m, Attention)} == {BACKENDS["sdpa"]}
    torch.testing.assert_close(net.decode(tokens, net.encode(source)), expected, rtol=1e-4, atol=1e-4)
