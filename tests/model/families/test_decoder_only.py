"""The decoder-only stack against one plain pass over the whole sequence; its size; its trainings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import sourcewise
from sourcewise.config import BridgeConfig, GenerationConfig, ModelConfig, TrainConfig
from sourcewise.data.batches import IGNORED, Batch, Source
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError
from sourcewise.generation.generate import search
from sourcewise.model.blocks.positions import sinusoids
from sourcewise.model.families import decoder_only, t5
from sourcewise.model.families.decoder_only import DecoderOnly, DecoderOnlyConfig, size
from sourcewise.model.inputs.registry import build_bridge
from sourcewise.model.network import Seq2Seq
from sourcewise.model.protocol import shift_right
from sourcewise.model.weights.checkpoint import load_network, save_network
from sourcewise.training.freezing import freeze
from sourcewise.training.objective import Objective
from tests.generation.searching import beam_search, greedy_or_sample
from tests.model.networks import DIMS, VOCABULARY, feature_source, logits, loss, rows, targets, text_source
from tests.training.recipes import recipe

TOKENIZER = Tokenizer.train(["ba do ki lu me no"] * 3, VOCABULARY)
SMALL = {"d_model": 24, "d_kv": 8, "d_ff": 32, "heads": 3, "layers": 3, "relative_buckets": 8, "relative_distance": 12}


def network(prefix: str = "full", bridge: str | None = None, **changes: Any) -> Seq2Seq:
    """A random network in evaluation mode; weights large enough that every part matters."""
    torch.manual_seed(11)
    body = DecoderOnly(DecoderOnlyConfig(VOCABULARY, **(SMALL | {"prefix": prefix} | changes)))
    built = None
    if bridge:
        config = BridgeConfig.model_validate({"kind": bridge, "stride": 3, "latents": 5})
        built = build_bridge(config, DIMS, body.config.d_model, 0.1)
    made = Seq2Seq(body, built)
    for name, parameter in made.named_parameters():
        if parameter.ndim == 1 or "positions" in name:
            torch.nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.3)
    return made.eval()


KINDS: dict[str, Seq2Seq] = {
    "causal": network("causal"),
    "full": network("full"),
    "causal, gated, untied": network("causal", activation="gated-gelu", tied=False, scaled=False),
    "full, features": network("full", "convolution", target_positions=True),
    "causal, perceiver": network("causal", "perceiver"),
}
kinds = pytest.mark.parametrize("kind", KINDS)
lengths = st.lists(st.integers(1, 14), min_size=2, max_size=5)


def source_of(kind: str, sizes: list[int], extra: int = 0, prompted: bool = True) -> Source:
    if KINDS[kind].bridge is None:
        return text_source(sizes, max(sizes) + extra)
    return feature_source(sizes, [1 + size % 4 for size in sizes] if prompted else None, max(sizes) + extra)


def one_pass(net: Seq2Seq, source: Source, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """A single source (1 row) and its target tokens (time,) as one sequence, without memory, cache or padding.

    Logits (time, vocabulary) of the target, and its attention to the source (layers, heads, time, slots).
    """
    body: Any = net.body
    c, prefix = body.config, net.embed(source)[0][0]
    target = body.embedding(tokens)
    if c.target_positions:
        target = target + sinusoids(len(tokens), c.d_model)
    x, begin = torch.cat((prefix, target)), len(prefix)
    place = torch.arange(len(x))
    seen = place[None] <= place[:, None]
    if c.prefix == "full":
        seen[:begin, :begin] = True
    positions = body.decoder_positions
    bias = positions.table(positions.bucket(place[None] - place[:, None])).permute(2, 0, 1)

    def normal(x: Tensor, weight: Tensor) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + c.eps).rsqrt() * weight

    found = []
    for block in body.decoder:
        qkv = normal(x, block.attention_norm.weight) @ block.attention.qkv.weight.T
        q, k, v = qkv.view(len(x), 3, c.heads, c.d_kv).unbind(1)
        scores = torch.einsum("qhd,khd->hqk", q, k) + bias
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        found.append(weights[:, begin:, :begin])
        x = x + torch.einsum("hqk,khd->qhd", weights, v).flatten(1) @ block.attention.out.weight.T
        inner = normal(x, block.feedforward_norm.weight) @ block.feedforward.wi.weight.T
        if c.activation == "relu":
            inner = F.relu(inner)
        else:
            gate, value = inner.chunk(2, -1)
            inner = F.gelu(gate, approximate="tanh") * value
        x = x + inner @ block.feedforward.wo.weight.T
    x = normal(x[begin:], body.decoder_norm.weight) * (c.d_model**-0.5 if c.scaled else 1)
    return x @ body.output_matrix.T, torch.stack(found)


# ── the computation ───────────────────────────────────────────────────────────────────────────────────────────────────


@kinds
@settings(max_examples=15, deadline=None)
@given(sizes=lengths, extra=st.integers(0, 9), time=st.integers(1, 20))
def test_source_then_target_is_one_pass_over_both(kind: str, sizes: list[int], extra: int, time: int) -> None:
    net, source, tokens = KINDS[kind], source_of(kind, sizes, extra), targets(len(sizes), time)
    found = logits(net, source, tokens)
    for i in range(len(sizes)):
        with torch.inference_mode():
            expected, _ = one_pass(net, rows(source, [i]), tokens[i])
        torch.testing.assert_close(found[i], expected, atol=1e-4, rtol=1e-4)


@kinds
def test_the_loss_and_its_gradient_are_those_of_one_pass(kind: str) -> None:
    net, source, labels = KINDS[kind], source_of(kind, [9, 4, 1], 2), targets(3)
    labels[1, 3:] = IGNORED
    net.zero_grad()
    nats, count = loss(net, Batch(source, labels, [0, 1, 2]))
    nats.backward()
    mine = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    tokens = shift_right(labels, net.start_id, net.pad_id)
    each = [one_pass(net, rows(source, [i]), tokens[i])[0] for i in range(3)]
    expected = F.cross_entropy(torch.cat(each), labels.flatten(), reduction="sum")
    expected.backward()
    assert count == 15
    assert float(nats.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    assert mine.keys() == {name for name, _ in net.named_parameters()}  # all of them learn, by way of the memory too
    for name, parameter in net.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(mine[name], parameter.grad, atol=1e-3, rtol=1e-3, msg=name)
    net.zero_grad()


@kinds
@settings(max_examples=10, deadline=None)
@given(sizes=lengths, extra=st.integers(0, 5))
def test_cross_attention_is_that_of_one_pass_on_the_slots_of_the_memory(
    kind: str, sizes: list[int], extra: int
) -> None:
    net, source, tokens = KINDS[kind], source_of(kind, sizes, extra), targets(len(sizes))
    with torch.inference_mode():
        memory = net.encode(source)
        weights = net.cross_attention(tokens, memory)
        assert weights is not None and weights.dtype == torch.float32
        for i in range(len(sizes)):
            _, expected = one_pass(net, rows(source, [i]), tokens[i])
            torch.testing.assert_close(weights[:, i][..., memory.mask[i]], expected, atol=1e-4, rtol=1e-4)
            assert not weights[:, i][..., ~memory.mask[i]].any()
    assert bool((weights.sum(-1) < 1).all())


@kinds
@settings(max_examples=10, deadline=None)
@given(sizes=lengths, extra=st.integers(1, 9), prompted=st.booleans())
def test_padding_and_neighbours_change_nothing(kind: str, sizes: list[int], extra: int, prompted: bool) -> None:
    net, tokens = KINDS[kind], targets(len(sizes))
    tight = logits(net, source_of(kind, sizes, 0, prompted), tokens)
    wide = logits(net, source_of(kind, sizes, extra, prompted), tokens)
    torch.testing.assert_close(wide, tight, atol=1e-4, rtol=1e-4)
    for i in range(len(sizes)):
        alone = logits(net, rows(source_of(kind, sizes, 0, prompted), [i]), tokens[[i]])
        torch.testing.assert_close(alone[0], tight[i], atol=1e-4, rtol=1e-4)


@kinds
@settings(max_examples=10, deadline=None)
@given(sizes=lengths, at=st.integers(1, 5))
def test_the_future_changes_nothing_and_the_past_does(kind: str, sizes: list[int], at: int) -> None:
    source, tokens = source_of(kind, sizes), targets(len(sizes))
    changed = tokens.clone()
    changed[:, at] = (changed[:, at] + 1 - 3) % (VOCABULARY - 3) + 3
    before, after = logits(KINDS[kind], source, tokens), logits(KINDS[kind], source, changed)
    torch.testing.assert_close(after[:, :at], before[:, :at], atol=1e-5, rtol=0)
    assert (after[:, at:] - before[:, at:]).abs().amax(dim=(1, 2)).min() > 1e-4


@pytest.mark.parametrize("prefix", ["causal", "full"])
def test_a_token_of_the_source_sees_what_the_prefix_says(prefix: str) -> None:
    net, source = KINDS[prefix], text_source([8, 8])
    assert source.tokens is not None
    keys = net.encode(source).keys_values[1][0]
    source.tokens[:, 5] = (source.tokens[:, 5] + 1 - 3) % (VOCABULARY - 3) + 3
    moved = (net.encode(source).keys_values[1][0] - keys).abs().amax(dim=(0, 1, 3)) > 1e-5
    assert moved.tolist() == [prefix == "full"] * 5 + [True] * 3


# ── generation ────────────────────────────────────────────────────────────────────────────────────────────────────────


@kinds
def test_a_cache_gives_what_teacher_forcing_gives(kind: str) -> None:
    net, source, tokens = KINDS[kind], source_of(kind, [5, 8, 2]), targets(6, 7)
    with torch.inference_mode():
        memory = net.encode(source)
        whole = net.decode(tokens, memory)  # 3 sources × 2 beams
        cache = net.new_cache(memory, 2, 7)
        parts = [net.decode(tokens[:, a:b], memory, cache) for a, b in ((0, 1), (1, 4), (4, 7))]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-4, rtol=1e-4)
    assert cache.sources == 3  # beams share their source's slots


@kinds
@pytest.mark.parametrize("options", [{"beams": 1}, {"beams": 3}, {"beams": 1, "sample": True, "seed": 4}], ids=str)
@settings(max_examples=8, deadline=None)
@given(sizes=lengths)
def test_a_search_finds_what_teacher_forcing_scores_whatever_its_batch(
    kind: str, options: dict[str, Any], sizes: list[int]
) -> None:
    net, source = KINDS[kind], source_of(kind, sizes)
    wanted = GenerationConfig.model_validate({"max_new_tokens": 10, "length_penalty": 0.0, **options})

    def found(source: Source, names: list[int]) -> list[Any]:
        memory = net.encode(source)
        if wanted.beams > 1:
            return [beams[0] for beams in beam_search(net, memory, wanted)]
        return greedy_or_sample(net, memory, wanted, names)

    with torch.inference_mode():
        together = found(source, list(range(len(sizes))))
        for i, hypothesis in enumerate(together):
            alone = found(rows(source, [i]), [i])[0]
            assert alone.ids == hypothesis.ids
            assert alone.score == pytest.approx(hypothesis.score, abs=1e-3)
            said = torch.tensor([*hypothesis.ids, net.eos_id][: len(hypothesis.ids) + hypothesis.finished])
            fed = torch.cat((torch.tensor([net.start_id]), said[:-1]))
            table = one_pass(net, rows(source, [i]), fed)[0].log_softmax(-1)
            score = table.gather(1, said[:, None]).sum()
            assert float(score) == pytest.approx(hypothesis.score, abs=1e-3)
            if options == {"beams": 1}:
                assert table.argmax(-1).tolist() == said.tolist()


@kinds
@settings(max_examples=6, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=3, max_size=30), crowd=st.integers(1, 7), beams=st.sampled_from([1, 3])
)
def test_stragglers_go_on_with_those_of_other_batches(kind: str, sizes: list[int], crowd: int, beams: int) -> None:
    net, source = KINDS[kind], source_of(kind, sizes)
    options = GenerationConfig(beams=beams, max_new_tokens=27)
    crowds = [list(range(i, min(i + crowd, len(sizes)))) for i in range(0, len(sizes), crowd)]
    with torch.inference_mode():
        together = search(net, [(list(range(len(sizes))), net.encode(source))], options)
        entering = search(net, [(c, net.encode(rows(source, c))) for c in crowds], options)
    for i, (hypothesis,) in together.items():
        (other,) = entering[i]
        assert other.ids == hypothesis.ids
        assert other.score == pytest.approx(hypothesis.score, abs=1e-3)


@settings(max_examples=20, deadline=None)
@given(sizes=lengths, more=lengths, data=st.data())
def test_memories_are_selected_and_joined(sizes: list[int], more: list[int], data: st.DataObject) -> None:
    net, count = KINDS["full"], len(sizes) + len(more)
    chosen = torch.tensor(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=6)))
    tokens, every = targets(count), text_source([*sizes, *more])
    with torch.inference_mode():
        first, second = (net.encode(rows(every, part)) for part in _halves(len(sizes), count))
        memory = first.join(second)
        joined = net.decode(tokens, memory)
        selected = net.decode(tokens[chosen], memory.select(chosen))
    torch.testing.assert_close(joined, logits(net, every, tokens), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(selected, joined[chosen], atol=1e-4, rtol=1e-4)
    assert memory.select(chosen).mask.shape[1] == max([*sizes, *more][i] for i in chosen.tolist())


def _halves(at: int, count: int) -> tuple[list[int], list[int]]:
    return list(range(at)), list(range(at, count))


# ── size, folders, requests ───────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=25, deadline=None)
@given(
    width=st.integers(1, 6),
    heads=st.integers(1, 4),
    ff=st.integers(16, 600),
    encoder=st.integers(1, 6),
    decoder=st.integers(1, 6),
    activation=st.sampled_from(["relu", "gated-gelu"]),
    tied=st.booleans(),
)
def test_it_has_as_many_parameters_as_the_encoder_decoder(width: int, heads: int, ff: int, **options: Any) -> None:
    shape = {"d_model": 32 * width * heads, "d_ff": ff, "heads": heads}
    layers = {f"{stack}_layers": options.pop(stack) for stack in ("encoder", "decoder")}
    section = ModelConfig.model_validate({"family": "decoder", "same_size": True, **shape, **layers, **options})
    with torch.device("meta"):
        mine = decoder_only.make(section, TOKENIZER, False)
        theirs = t5.make(section, TOKENIZER, False)
    assert size(mine) == pytest.approx(size(theirs), rel=0.01)
    assert mine.config.layers >= sum(layers.values())  # the encoder's, and more for the cross-attention
    assert (mine.config.d_model, mine.config.heads) == (shape["d_model"], heads)


def test_the_size_of_a_usual_shape() -> None:
    section = ModelConfig(family="decoder", same_size=True)
    with torch.device("meta"):
        made = decoder_only.make(section, TOKENIZER, False).config
    assert (made.layers, made.d_ff) == (9, 1080)
    with torch.device("meta"):
        made = decoder_only.make(ModelConfig(family="decoder", decoder_layers=3), TOKENIZER, False).config
    assert (made.layers, made.d_ff) == (3, 1024)  # what the recipe says, unless it asks for the same size


@kinds
def test_a_folder_gives_the_same_network_again(kind: str, tmp_path: Path) -> None:
    save_network(KINDS[kind], tmp_path / "net")
    again: Any = load_network(tmp_path / "net")
    assert json.loads((tmp_path / "net" / "config.json").read_text())["model_type"] == "sourcewise-decoder"
    assert again.body.config == KINDS[kind].body.config
    source, tokens = source_of(kind, [5, 2]), targets(2)
    assert torch.equal(logits(again, source, tokens), logits(KINDS[kind], source, tokens))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"d_kv": None}, r"config\.json: the key 'd_kv' of a sourcewise-decoder configuration is missing"),
        ({"eos_token_id": None}, r"config\.json: eos_token_id is missing"),
        ({"prefix": "half"}, "prefix 'half' is not one of causal, full"),
        ({"activation": "sine"}, "activation 'sine' is not one of relu"),
        ({"layers": 4}, r"model\.safetensors: the tensor decoder\.3\.attention_norm\.weight is missing"),
        (
            {"vocabulary": 10**9},
            r"embedding\.weight has the shape \(40, 24\), the configuration says \(1000000000, 24\)",
        ),
        ({"layers": "two"}, "describes no network"),
        ({"layers": 10**9}, r"config\.json: states more layers than .*model\.safetensors has tensors"),
    ],
)
def test_a_damaged_folder_is_named(change: dict[str, Any], line: str, tmp_path: Path) -> None:
    save_network(KINDS["full"], tmp_path / "net")
    file = tmp_path / "net" / "config.json"
    config = json.loads(file.read_text()) | change
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    (tmp_path / "net" / "generation_config.json").unlink()
    with pytest.raises(RequestError, match=line):
        load_network(tmp_path / "net")


def test_what_needs_an_encoder_is_refused(tmp_path: Path) -> None:
    net = network()
    with pytest.raises(RequestError, match=r"train\.freeze: this network has no encoder"):
        freeze(net, ["embedding", "encoder"])
    with pytest.raises(RequestError, match=r"train\.ctc_weight: this network has no encoder"):
        Objective(net, TrainConfig(ctc_weight=0.3))
    with pytest.raises(RequestError, match="no encoder to go past"):
        net.body.bypass(torch.zeros(1, 2, 24), torch.ones(1, 2, dtype=torch.bool))
    for model in ({"family": "decoder"}, {"weights": str(tmp_path / "net")}):
        save_network(net, tmp_path / "net", TOKENIZER)
        made = recipe(tmp_path, model={**model, "route": "bypass"})
        with pytest.raises(RequestError, match=r"model\.route: bypass, but this network has no encoder"):
            sourcewise.train(made)
    with pytest.raises(ValueError, match="same_size goes with family decoder, not t5"):
        ModelConfig(same_size=True)


def test_its_parts_are_frozen_by_name() -> None:
    net = network(tied=False)
    freeze(net, ["decoder"])
    assert {name for name, p in net.named_parameters() if p.requires_grad} == {
        "body.embedding.weight",
        "body.head.weight",
    }
    freeze(net, ["embedding"])
    assert not any(p.requires_grad for p in net.parameters())


# ── trainings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("prefix", ["causal", "full"])
def test_in_bf16_it_computes_nearly_what_it_does_in_fp32(prefix: str) -> None:
    net, source, labels = network(prefix), text_source([5, 3, 7]), targets(3)
    batch = Batch(source, labels, [0, 1, 2])
    exact, table = float(loss(net, batch)[0].detach()), logits(net, source, labels)
    net.to(torch.bfloat16)
    assert float(loss(net, batch)[0].detach()) == pytest.approx(exact, rel=2e-2)
    with torch.inference_mode():
        kept = net.encode(source)
    for memory in (kept, net.encode(source)):  # one holds fp32 keys, the other bf16
        for inference in (True, False):
            with torch.inference_mode(inference), torch.set_grad_enabled(False):
                found = net.decode(labels, memory)
            torch.testing.assert_close(found.float(), table, atol=0.1 * float(table.std()), rtol=0.1)
