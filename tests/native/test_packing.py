"""Examples one after another: the same numbers as with padding, in a part of a block and in a whole network."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sourcewise.model.blocks.attention import MASKED
from sourcewise.model.blocks.packing import Packing
from torch import Tensor

from sourcewise.data.batches import IGNORED, Batch, Source
from sourcewise.model.blocks.memory import PackedMemory
from sourcewise.model.families.transformer import Transformer, TransformerConfig
from sourcewise.model.network import Seq2Seq
from sourcewise.native.codes import TILES
from sourcewise.native.training import attention_part
from sourcewise.native.training.tiles import has_tiles, tiled
from sourcewise.runtime.threads import WorkerThreads
from sourcewise.training.objective import Objective
from sourcewise.training.step import gradients
from tests.training.test_optimizer import config

EPS = 1e-6
VOCABULARY = 90


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def needs_tiles() -> None:
    if (lacking := TILES.why_not()) is not None:
        assert "failed" not in lacking, lacking
        pytest.skip(lacking)
    if not has_tiles():
        pytest.skip("the system does not let this process use tiles")
    assert tiled(attention_part.CODE) is not None, "it does not compile"


def packing(lengths: Tensor, time: int) -> Packing:
    return Packing(torch.arange(time) < lengths[:, None])


def drawn(most: int, batch: int, seed: int) -> Tensor:
    return torch.randint(1, most + 1, (batch,), generator=torch.Generator().manual_seed(seed))


@given(batch=st.integers(1, 9), time=st.integers(1, 9), seed=st.integers(0, 99))
def test_what_is_packed_is_unpacked_as_it_was(batch: int, time: int, seed: int) -> None:
    lengths = drawn(time, batch, seed)
    packed, x = packing(lengths, time), torch.rand(batch, time, 3)
    rows = packed.pack(x.requires_grad_())
    assert torch.equal(rows, torch.cat([row[:n] for row, n in zip(x, lengths.tolist(), strict=True)]))
    back = packed.unpack(rows)
    assert torch.equal(back, x * packed.mask[..., None])
    (grad,) = torch.autograd.grad(back.sum(), x)
    assert torch.equal(grad, packed.mask[..., None].expand_as(x).float())
    pieces = packed.starts[packed.bounds].diff()
    assert int(pieces.sum()) == packed.rows and packed.bounds[-1] == batch
    assert packed.room == sum(-(-n // 32) * 32 for n in pieces.tolist())


def reference(
    x: Tensor,
    scale: Tensor,
    into: Tensor,
    out: Tensor,
    bias: Tensor | None,
    memory: list[Tensor],
    d_kv: int,
    own: Packing,
    source: Packing,
) -> Tensor:
    """The part in plain torch, an example at a time; `memory`: states and the weight of keys and values, or nothing."""
    inner = out.shape[1]
    projected = F.rms_norm(x, (x.shape[1],), scale, EPS) @ into.T
    others = memory[0] @ memory[1].T if memory else projected[:, inner:]
    read = []
    for i in range(len(own.lengths)):
        (a, b), (c, d) = own.starts[i : i + 2].tolist(), source.starts[i : i + 2].tolist()
        query = projected[a:b, :inner].view(b - a, -1, d_kv).transpose(0, 1)
        key, value = (part.reshape(d - c, -1, d_kv).transpose(0, 1) for part in others[c:d].split(inner, 1))
        scores = query @ key.transpose(1, 2)
        scores = scores if bias is None else scores + bias[:, : b - a, : d - c]
        read.append((scores.softmax(-1) @ value).transpose(0, 1).flatten(1))
    return x + torch.cat(read) @ out.T


@settings(max_examples=20, deadline=None)
@given(
    batch=st.integers(1, 12),
    time=st.sampled_from([1, 7, 16, 17, 40, 130]),
    slots=st.sampled_from([1, 9, 33, 70, 200]),
    d_model=st.sampled_from([32, 96]),
    heads=st.integers(1, 3),
    d_kv=st.sampled_from([32, 64]),
    cross=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_part_is_that_of_torch(
    batch: int, time: int, slots: int, d_model: int, heads: int, d_kv: int, cross: bool, seed: int
) -> None:
    needs_tiles()
    torch.manual_seed(seed)
    own, inner = packing(drawn(time, batch, seed), time), heads * d_kv
    source = packing(drawn(slots, batch, seed + 1), slots) if cross else own
    given_ = [torch.randn(own.rows, d_model), 1 + 0.2 * torch.randn(d_model)]
    given_ += [
        torch.randn((1 if cross else 3) * inner, d_model) * d_model**-0.5,
        torch.randn(d_model, inner) * inner**-0.5,
    ]
    given_[2][:inner] *= d_kv**-0.5
    if cross:
        given_ += [torch.randn(source.rows, d_model), torch.randn(2 * inner, d_model) * d_model**-0.5]
    future = torch.ones(time, time).triu(1).bool()
    bias = None if cross else torch.randn(heads, time, time).masked_fill(future, MASKED)
    results = []
    for kind in (torch.bfloat16, torch.float32):
        x, scale, into, out, *memory = inputs = [each.bfloat16().to(kind).requires_grad_() for each in given_]
        own_bias = None if bias is None else bias.clone().requires_grad_()
        if kind == torch.float32:
            y = reference(x, scale, into, out, own_bias, memory, d_kv, own, source)
        else:
            keys_values = attention_part.to_heads(memory[0], [memory[1]], d_kv)[0] if cross else None
            settings_ = attention_part.Settings(own, source, d_kv, EPS, (0.0, 0.0), (0, 0))
            y = attention_part.attention_part(x, scale, into, out, own_bias, keys_values, settings_)
        leaves = [*inputs, *([] if own_bias is None else [own_bias])]
        grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(5)).to(kind)
        results.append([y, *torch.autograd.grad(y, leaves, grad)])
    for found, expected in zip(*results, strict=True):
        assert (found.float() - expected).norm() <= 0.02 * expected.norm() + 1e-3 * expected.numel() ** 0.5


def test_weights_that_are_dropped_are_dropped_in_the_gradient_too() -> None:
    """By finite differences: the same seeds give the same function."""
    needs_tiles()
    own, d_kv = packing(torch.tensor([9, 5, 14]), 14), 32
    torch.manual_seed(0)
    x, into, out = torch.randn(28, 64), torch.randn(192, 64) / 8, torch.randn(64, 64) / 8
    settings_ = attention_part.Settings(own, own, d_kv, EPS, (0.3, 0.2), (5, 6))
    scale = torch.ones(64).bfloat16()

    def run(value: Tensor) -> Tensor:
        weight = torch.cat((torch.zeros(128, 64), value)).bfloat16()  # even weights: what is read is linear in values
        return attention_part.attention_part(x.bfloat16(), scale, weight, out.bfloat16(), None, None, settings_)

    values = into[128:].clone().requires_grad_()
    y, grad = run(values), torch.randn(28, 64)
    (by_values,) = torch.autograd.grad((y.float() * grad).sum(), values)
    step = torch.randn(64, 64)
    difference = ((run(values + step / 2) - run(values - step / 2)).float() * grad).sum().detach()
    assert float(difference) == pytest.approx(float((by_values * step).sum()), rel=0.05)
    assert torch.equal(y, run(values)) and not torch.equal(y, x.bfloat16())


def network(**options: object) -> Seq2Seq:
    torch.manual_seed(0)
    shape = {"d_model": 64, "d_kv": 32, "d_ff": 128, "heads": 2, "encoder_layers": 2, "decoder_layers": 2}
    return Seq2Seq(
        Transformer(TransformerConfig(VOCABULARY, **{**shape, "dropout": 0.0, "attention_dropout": 0.0, **options}))
    )  # type: ignore[arg-type]


def batch(count: int = 24, seed: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    lengths, times = drawn(20, count, seed), drawn(15, count, seed + 1)
    tokens = torch.randint(3, VOCABULARY, (count, 20), generator=generator) * (torch.arange(20) < lengths[:, None])
    labels = torch.randint(3, VOCABULARY, (count, 15), generator=generator)
    labels[torch.arange(15) >= times[:, None]] = IGNORED
    return Batch(Source(tokens=tokens, token_lengths=lengths), labels, list(range(count)))


@pytest.mark.parametrize("options", [{}, {"activation": "gated-gelu", "tied": False}, {"decoder_positions": True}])
def test_a_network_learns_the_same_without_padding(options: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    needs_tiles()
    found = []
    for kind in ("packed", "padded", "exact"):
        objective = Objective(network(**options).train(), config())
        objective = objective if kind == "exact" else objective.bfloat16()
        if kind == "padded":
            monkeypatch.setattr(attention_part, "takes", lambda *_: False)
        memory = objective.network.encode(batch().source)
        assert isinstance(memory, PackedMemory) == (kind == "packed")
        targets = batch().target_tokens
        of = gradients(objective, list(objective.parameters()), [batch], targets, WorkerThreads(None))
        found.append((of.nats, [each for each in of.of if each is not None]))
    (nats, packed), (_, padded), (exact_nats, exact) = found
    assert nats == pytest.approx(exact_nats, rel=1e-3)
    for one, other, wanted in zip(packed, padded, exact, strict=True):
        scale = wanted.norm()
        assert (one.float() - wanted).norm() < max(0.08 * scale, 1.5 * (other.float() - wanted).norm())


def test_a_packed_memory_is_a_memory() -> None:
    needs_tiles()
    net = network().bfloat16().train()
    packed = net.encode(batch().source)
    assert isinstance(packed, PackedMemory)
    vectors, mask = net.embed(batch().source)
    plain = net.body.bypass(net.body.run_encoder(vectors, mask), mask)  # type: ignore[attr-defined]
    assert packed.batch == plain.batch and torch.equal(packed.mask, plain.mask)
    real = mask[..., None]
    torch.testing.assert_close(packed.states * real, plain.states * real, rtol=0.05, atol=0.05)
    for layer, (keys, values) in enumerate(plain.keys_values):
        for one, other in zip(packed.keys_values[layer], (keys, values), strict=True):
            assert one.shape == other.shape
            torch.testing.assert_close(one * real[:, None], other * real[:, None], rtol=0.1, atol=0.1)
    with torch.no_grad():  # as scheduled sampling reads it
        states = net.body.run_decoder(batch().labels.clamp(min=0), packed)
    assert states.shape == (24, 15, 64)
