"""Examples one after another: the same numbers as with padding, in a part of a block and in a whole network."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sourcewise.data.batches import IGNORED, Batch, Source
from sourcewise.data.layout import Layout
from sourcewise.model.attention import MASKED, choose
from sourcewise.model.families.transformer import Transformer, TransformerConfig
from sourcewise.model.network import Seq2Seq
from sourcewise.model.place import place
from sourcewise.model.protocol import Aims
from sourcewise.native.codes import TILES
from sourcewise.native.training import attention_part
from sourcewise.native.training.tiles import has_tiles, tiled
from sourcewise.runtime.threads import WorkerThreads
from sourcewise.training.objective import Objective
from sourcewise.training.parts import Part
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


def packing(lengths: Tensor, time: int) -> Layout:
    return Layout(lengths.numpy(), time, packed=True)


def drawn(most: int, batch: int, seed: int) -> Tensor:
    return torch.randint(1, most + 1, (batch,), generator=torch.Generator().manual_seed(seed))


@given(batch=st.integers(1, 9), time=st.integers(1, 9), seed=st.integers(0, 99))
def test_what_is_packed_is_unpacked_as_it_was(batch: int, time: int, seed: int) -> None:
    lengths = drawn(time, batch, seed)
    packed, x = packing(lengths, time), torch.rand(batch, time, 3)
    rows = packed.pack(x.requires_grad_())
    assert torch.equal(rows, torch.cat([row[:n] for row, n in zip(x, lengths.tolist(), strict=True)]))
    back = packed.pad(rows)
    mask = packed.on("cpu").mask
    assert torch.equal(back, x * mask[..., None])
    (grad,) = torch.autograd.grad(back.sum(), x)
    assert torch.equal(grad, mask[..., None].expand_as(x).float())
    made = attention_part.pieces(packed)
    pieces = made.starts[made.bounds].diff()
    assert int(pieces.sum()) == packed.rows and made.bounds[-1] == batch
    assert made.room == sum(-(-n // 32) * 32 for n in pieces.tolist())


def reference(
    x: Tensor,
    scale: Tensor,
    into: Tensor,
    out: Tensor,
    bias: Tensor | None,
    memory: list[Tensor],
    d_kv: int,
    own: Layout,
    source: Layout,
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
            both = attention_part.pieces(own), attention_part.pieces(source)
            settings_ = attention_part.Settings(*both, d_kv, EPS, (0.0, 0.0), (0, 0))
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
    settings_ = attention_part.Settings(
        attention_part.pieces(own), attention_part.pieces(own), d_kv, EPS, (0.3, 0.2), (5, 6)
    )
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


def always_packed(network: Seq2Seq) -> Seq2Seq:
    """Whatever the processor: attention then pads and packs by itself."""

    def arrange(x: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        layout = layout.compact()
        return layout.pack(x), layout

    network.body.arrange.forward = arrange  # type: ignore[attr-defined]
    return network


OPTIONS: list[dict[str, object]] = [{}, {"activation": "gated-gelu", "tied": False}, {"decoder_positions": True}]


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("options", OPTIONS)
def test_packed_and_padded_are_one_computation(options: dict[str, object], backend: str) -> None:
    results = []
    for packed in (False, True):
        net = network(**options)
        choose(net, backend)
        net = always_packed(net) if packed else net
        assert net.read(batch().source).layout.packed == packed
        found = net(batch(), Aims(0.1))
        gradients_ = torch.autograd.grad(found.minimised, list(net.parameters()))
        weights = net.cross_attention(batch().labels.clamp(min=0), net.encode(batch().source))
        results.append([found.minimised, found.nats, *gradients_, weights])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", OPTIONS)
def test_a_network_learns_the_same_in_native_code(options: dict[str, object]) -> None:
    needs_tiles()
    found = []
    for kind in ("native", "plain", "exact"):
        objective = Objective(network(**options).train(), config())
        objective = objective if kind == "exact" else objective.bfloat16()
        if kind == "native":
            place(objective, "cpu")
        assert objective.network.read(batch().source).layout.packed == (kind == "native")
        targets = batch().target_tokens
        of = gradients(objective, list(objective.parameters()), [Part(batch, 7)], targets, WorkerThreads(None))
        found.append((sum(map(float, of.nats)), [each for each in of.of if each is not None]))
    (nats, ours), (_, plain), (exact_nats, exact) = found
    assert nats == pytest.approx(exact_nats, rel=1e-3)
    for one, other, wanted in zip(ours, plain, exact, strict=True):
        scale = wanted.norm()
        assert (one.float() - wanted).norm() < max(0.08 * scale, 1.5 * (other.float() - wanted).norm())


def test_a_packed_memory_is_a_memory() -> None:
    plain = network().eval()
    packed = always_packed(network().eval())
    memories = [net.encode(batch().source) for net in (plain, packed)]
    assert [memory.layout.packed for memory in memories] == [False, True]
    assert memories[1].batch == 24 and torch.equal(memories[0].mask, memories[1].mask)
    tokens = batch().labels.clamp(min=0)
    expected = plain.decode(tokens, memories[0])
    torch.testing.assert_close(packed.decode(tokens, memories[1]), expected, rtol=1e-4, atol=1e-4)
    chosen = torch.tensor([5, 3])
    few = packed.body.keep(memories[1].select(chosen))  # type: ignore[attr-defined]
    torch.testing.assert_close(packed.decode(tokens[chosen], few), expected[chosen], rtol=1e-4, atol=1e-4)
