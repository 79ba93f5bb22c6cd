"""The recurrent ancestors against their equations, slot by slot and token by token; their searches and trainings."""

from __future__ import annotations

import copy
import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sourcewise.config import GenerationConfig, ModelConfig
from sourcewise.data.batches import IGNORED, Batch, Source
from sourcewise.errors import RequestError
from sourcewise.generation.generate import search
from sourcewise.model.blocks.recurrent_layers import Product, step
from sourcewise.model.families import recurrent
from sourcewise.model.network import Seq2Seq
from sourcewise.model.protocol import shift_right
from sourcewise.model.weights.checkpoint import load_network, save_network
from sourcewise.runtime.threads import WorkerThreads
from sourcewise.training.freezing import freeze
from sourcewise.training.objective import Objective
from sourcewise.training.parts import Part
from sourcewise.training.step import gradients
from tests.generation.searching import beam_search, greedy_or_sample
from tests.model.networks import VOCABULARY, logits, loss, rows, targets, text_source
from tests.model.recurrent_networks import (
    ATTENTIVE,
    KINDS,
    TOKENIZER,
    kinds,
    lengths,
    network,
    one_by_one,
    source_of,
)
from tests.training.test_optimizer import config


@kinds
@settings(max_examples=12, deadline=None)
@given(sizes=lengths, extra=st.integers(0, 9), time=st.integers(1, 9), prompted=st.booleans())
def test_a_padded_batch_is_every_example_by_the_equations(
    kind: str, sizes: list[int], extra: int, time: int, prompted: bool
) -> None:
    net, source, tokens = KINDS[kind], source_of(kind, sizes, extra, prompted), targets(len(sizes), time)
    with torch.inference_mode():
        memory = net.encode(source)
        found, weights = net.decode(tokens, memory), net.cross_attention(tokens, memory)
        for i in range(len(sizes)):
            expected, seen = one_by_one(net, rows(source, [i]), tokens[i])
            torch.testing.assert_close(found[i], expected, atol=1e-4, rtol=1e-4)
            if weights is not None:
                torch.testing.assert_close(weights[0, i, 0][:, memory.mask[i]], seen, atol=1e-4, rtol=1e-4)
                assert not weights[0, i, 0][:, ~memory.mask[i]].any()
    assert (weights is None) == (kind not in ATTENTIVE)
    assert weights is None or (weights.dtype == torch.float32 and weights.shape[:3] == (1, len(sizes), 1))


@kinds
@pytest.mark.parametrize("hypotheses", [1, 2])
def test_the_loss_and_its_gradient_are_those_of_the_equations(kind: str, hypotheses: int) -> None:
    net, source, labels = KINDS[kind], source_of(kind, [9, 4, 1], 2), targets(3 * hypotheses)
    labels[1, 3:] = IGNORED
    net.zero_grad()
    if hypotheses == 1:
        nats, count = loss(net, Batch(source, labels, [0, 1, 2]))
        assert count == 15
    else:  # what nobody trains with, but a memory may serve
        fed = shift_right(labels, net.start_id, net.pad_id)
        found = net.decode(fed, net.encode(source)).flatten(0, 1)
        nats = F.cross_entropy(found, labels.flatten(), ignore_index=IGNORED, reduction="sum")
    nats.backward()
    mine = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    fed = shift_right(labels, net.start_id, net.pad_id)
    each = [one_by_one(net, rows(source, [i // hypotheses]), fed[i])[0] for i in range(len(labels))]
    expected = F.cross_entropy(torch.cat(each), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    expected.backward()
    assert float(nats.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    learnt = {name for name, p in net.named_parameters() if p.grad is not None}
    assert mine.keys() == learnt
    assert {name for name, _ in net.named_parameters()} - learnt == {
        name for name, _ in net.named_parameters() if name.startswith("body.encoder.") and net.route == "bypass"
    }
    for name, parameter in net.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(mine[name], parameter.grad, atol=1e-3, rtol=1e-3, msg=name)
    net.zero_grad()


@kinds
@settings(max_examples=8, deadline=None)
@given(sizes=lengths, at=st.integers(1, 5))
def test_the_future_changes_nothing_and_the_past_does(kind: str, sizes: list[int], at: int) -> None:
    source, tokens = source_of(kind, sizes), targets(len(sizes))
    changed = tokens.clone()
    changed[:, at] = (changed[:, at] + 1 - 3) % (VOCABULARY - 3) + 3
    first, second = logits(KINDS[kind], source, tokens), logits(KINDS[kind], source, changed)
    torch.testing.assert_close(second[:, :at], first[:, :at], atol=1e-5, rtol=0)
    assert (second[:, at:] - first[:, at:]).abs().amax(dim=(1, 2)).min() > 1e-4


@kinds
def test_every_part_of_the_source_reaches_the_logits(kind: str) -> None:
    tokens = targets(2)
    first = logits(KINDS[kind], source_of(kind, [9, 9], prompted=False), tokens)
    for place in range(9):
        changed = source_of(kind, [9, 9], prompted=False)
        if changed.features is not None:
            changed.features[:, place] += 1.0
        else:
            assert changed.tokens is not None
            changed.tokens[:, place] = (changed.tokens[:, place] + 1 - 3) % (VOCABULARY - 3) + 3
        assert (logits(KINDS[kind], changed, tokens) - first).abs().max() > 1e-4


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_steps_are_those_of_torch(cell: str) -> None:
    torch.manual_seed(0)
    theirs: Any = nn.GRUCell(5, 7) if cell == "gru" else nn.LSTMCell(5, 7)
    x, state = torch.randn(3, 5), tuple(torch.randn(2, 3, 7).unbind(0))[: 1 if cell == "gru" else 2]
    given = F.linear(x, theirs.weight_ih, theirs.bias_ih)
    mine = step(given, F.linear(state[0], theirs.weight_hh, theirs.bias_hh), state)
    expected = theirs(x, state[0] if cell == "gru" else state)
    for one, other in zip(mine, (expected,) if cell == "gru" else expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("biased", [True, False])
def test_a_product_has_the_gradients_of_all_its_uses(biased: bool) -> None:
    torch.manual_seed(0)
    weight, x = (torch.randn(4, 4, dtype=torch.double, requires_grad=True) for _ in range(2))
    bias = torch.randn(4, dtype=torch.double, requires_grad=True) if biased else None
    inputs = (x, weight) if bias is None else (x, weight, bias)

    def thrice(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        product = Product(weight, bias)
        for _ in range(3):
            x = torch.tanh(product(x))
        return x

    assert torch.autograd.gradcheck(thrice, inputs)


@pytest.mark.parametrize("kind", ["gru", "lstm, one vector", "lstm, deep, untied"])
def test_bf16_gives_about_the_same_gradients(kind: str) -> None:
    """Over 40 steps, as in a training: weights in bf16, their gradients too."""
    found = []
    for precision in (torch.float32, torch.bfloat16):
        net = network("lstm" if "lstm" in kind else "gru", "none" if "vector" in kind else "bahdanau").to(precision)
        source, labels = text_source([38, 21, 40]), targets(3, 40)
        nats, count = loss(net, Batch(source, labels, [0, 1, 2]), 0.1)
        found.append((float(nats.detach()), torch.autograd.grad(nats / count, list(net.parameters()))))
    (exact, grads), (rounded, rounded_grads) = found
    assert rounded == pytest.approx(exact, rel=0.01)
    for one, other in zip(grads, rounded_grads, strict=True):
        assert float(F.cosine_similarity(one.flatten(), other.float().flatten(), dim=0)) > 0.98


def test_worker_threads_share_the_gradient() -> None:
    """Two Python threads at once, each with a share of the examples."""
    objective, sizes = Objective(network("gru", "bahdanau", dropout=0.0).train(), config()), [5, 3, 7, 2, 6]

    def part(chosen: list[int]) -> Batch:
        return Batch(rows(text_source(sizes), chosen), targets(5)[chosen], chosen)

    parameters, kept = list(objective.parameters()), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        cut, whole = (
            gradients(
                objective,
                parameters,
                [Part(partial(part, p), 7) for p in parts],
                30,
                WorkerThreads(torch.device("cpu")),
            )
            for parts in ([[3, 1], [0], [4, 2]], [[0, 1, 2, 3, 4]])
        )
    finally:
        torch.set_num_threads(kept)
    assert sum(map(float, cut.nats)) == pytest.approx(sum(map(float, whole.nats)), rel=1e-5)
    for found, expected in zip(cut.of, whole.of, strict=True):
        assert found is not None and expected is not None
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


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


@kinds
@pytest.mark.parametrize("options", [{"beams": 1}, {"beams": 3}, {"beams": 1, "sample": True, "seed": 4}], ids=str)
@settings(max_examples=6, deadline=None)
@given(sizes=lengths)
def test_a_search_finds_what_the_equations_score_whatever_its_batch(
    kind: str, options: dict[str, Any], sizes: list[int]
) -> None:
    net, source = KINDS[kind], source_of(kind, sizes)
    wanted = GenerationConfig.model_validate({"max_new_tokens": 9, "length_penalty": 0.0, **options})

    def found(source: Source, names: list[int]) -> list[Any]:
        memory = net.encode(source)
        if wanted.beams > 1:
            return [beams[0] for beams in beam_search(net, memory, wanted)]
        return greedy_or_sample(net, memory, wanted, names)

    with torch.inference_mode():
        for i, hypothesis in enumerate(found(source, list(range(len(sizes))))):
            alone = found(rows(source, [i]), [i])[0]
            assert alone.ids == hypothesis.ids
            assert alone.score == pytest.approx(hypothesis.score, abs=1e-3)
            said = torch.tensor([*hypothesis.ids, net.eos_id][: len(hypothesis.ids) + hypothesis.finished])
            fed = torch.cat((torch.tensor([net.start_id]), said[:-1]))
            table = one_by_one(net, rows(source, [i]), fed)[0].log_softmax(-1)
            assert float(table.gather(1, said[:, None]).sum()) == pytest.approx(hypothesis.score, abs=1e-3)
            if options == {"beams": 1}:
                assert table.argmax(-1).tolist() == said.tolist()


@kinds
@settings(max_examples=5, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=3, max_size=30), crowd=st.integers(1, 7), beams=st.sampled_from([1, 3])
)
@example(sizes=[*[1] * 13, 2], crowd=1, beams=3)  # two beams with scores that are the same in fp32
def test_stragglers_go_on_with_those_of_other_batches(kind: str, sizes: list[int], crowd: int, beams: int) -> None:
    net, source = copy.deepcopy(KINDS[kind]).double(), source_of(kind, sizes)  # rounding breaks ties in fp32
    options = GenerationConfig(beams=beams, max_new_tokens=27)
    crowds = [list(range(i, min(i + crowd, len(sizes)))) for i in range(0, len(sizes), crowd)]
    with torch.inference_mode():
        together = search(net, [(list(range(len(sizes))), net.encode(source))], options)
        entering = search(net, [(c, net.encode(rows(source, c))) for c in crowds], options)
    for i, (hypothesis,) in together.items():
        (other,) = entering[i]
        assert other.ids == hypothesis.ids
        assert other.score == pytest.approx(hypothesis.score, abs=1e-3)


@pytest.mark.parametrize("kind", ["gru", "lstm, one vector"])
@settings(max_examples=15, deadline=None)
@given(sizes=lengths, more=lengths, data=st.data())
def test_memories_are_selected_and_joined(kind: str, sizes: list[int], more: list[int], data: st.DataObject) -> None:
    net, every = KINDS[kind], text_source([*sizes, *more])
    count, cut = len(sizes) + len(more), len(sizes)
    chosen = torch.tensor(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=6)))
    tokens = targets(count)
    with torch.inference_mode():
        first, second = (net.encode(rows(every, list(part))) for part in (range(cut), range(cut, count)))
        memory = first.join(second)
        joined = net.decode(tokens, memory)
        selected = net.decode(tokens[chosen], memory.select(chosen))
    torch.testing.assert_close(joined, logits(net, every, tokens), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(selected, joined[chosen], atol=1e-4, rtol=1e-4)
    assert memory.select(chosen).mask.shape[1] == max([*sizes, *more][i] for i in chosen.tolist())


# ── beginnings, folders, requests ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("attention", ["bahdanau", "none"])
@torch.no_grad()
def test_how_it_begins(cell: str, attention: str) -> None:
    section = ModelConfig.model_validate(
        {"family": "rnn", "cell": cell, "attention": attention, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2}
    )
    torch.manual_seed(0)
    body = recurrent.make(section, TOKENIZER, False)
    for name, module in body.named_modules():
        if isinstance(module, (nn.GRU, nn.LSTM)):
            given, carried, *biases = module.all_weights[0]
            for gate in carried.chunk(len(carried) // module.hidden_size):
                torch.testing.assert_close(gate @ gate.T, torch.eye(len(gate)), atol=1e-4, rtol=0, msg=name)
            assert float(given.std()) == pytest.approx((2 / (given.shape[1] + module.hidden_size)) ** 0.5, rel=0.1)
            forget = sum(biases).chunk(4)[1] if isinstance(module, nn.LSTM) else torch.ones(1)
            assert bool((forget == 1).all()) and float(sum(b.abs().sum() for b in biases)) in (0, module.hidden_size)
    ids = torch.tensor([TOKENIZER.encode("ba do ki"), TOKENIZER.encode("do ba ki")])
    nats, count = loss(Seq2Seq(body.eval()), Batch(Source(ids, torch.tensor([ids.shape[1]] * 2)), ids, [0, 1]))
    assert float(nats) / count == pytest.approx(math.log(body.config.vocabulary), rel=0.25)


@kinds
def test_a_folder_gives_the_same_network_again(kind: str, tmp_path: Path) -> None:
    save_network(KINDS[kind], tmp_path / "net")
    again: Any = load_network(tmp_path / "net")
    assert json.loads((tmp_path / "net" / "config.json").read_text())["model_type"] == "sourcewise-rnn"
    assert again.body.config == KINDS[kind].body.config
    source, tokens = source_of(kind, [5, 2]), targets(2)
    assert torch.equal(logits(again, source, tokens), logits(KINDS[kind], source, tokens))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"cell": None}, r"config\.json: the key 'cell' of a sourcewise-rnn configuration is missing"),
        ({"eos_token_id": None}, r"config\.json: eos_token_id is missing"),
        ({"cell": "qrnn"}, "cell 'qrnn' is not one of gru, lstm"),
        ({"attention": "luong"}, "attention 'luong' is not one of bahdanau, none"),
        (
            {"attention": "none"},
            r"model\.safetensors: 4 tensors .*decoder\.0\.key\.weight.* are of no part of such a network",
        ),
        ({"decoder_layers": 2}, r"model\.safetensors: the tensor decoder_start\.1\.weight is missing"),
        ({"encoder_layers": 10**9}, "more layers than"),
        (
            {"vocabulary": 10**9},
            r"embedding\.weight has the shape \(40, 24\), the configuration says \(1000000000, 24\)",
        ),
        ({"encoder_layers": "two"}, "describes no network"),
    ],
)
def test_a_damaged_folder_is_named(change: dict[str, Any], line: str, tmp_path: Path) -> None:
    save_network(KINDS["gru"], tmp_path / "net")
    file = tmp_path / "net" / "config.json"
    said = json.loads(file.read_text()) | change
    file.write_text(json.dumps({key: value for key, value in said.items() if value is not None}))
    (tmp_path / "net" / "generation_config.json").unlink()
    with pytest.raises(RequestError, match=line):
        load_network(tmp_path / "net")


def test_an_odd_width_is_refused() -> None:
    with pytest.raises(ValueError, match="d_model 25 is odd"):
        ModelConfig(family="rnn", d_model=25)
    assert ModelConfig(family="rnn", d_model=26).d_model == 26  # heads, of which there are none, need not divide it


def test_its_parts_are_frozen_by_name() -> None:
    net = network("gru", "bahdanau", "projection", tied=False)
    freeze(net, ["encoder", "embedding", "bridge"])
    moving = {name.split(".")[1] for name, p in net.named_parameters() if p.requires_grad}
    assert moving == {"decoder", "decoder_start", "decoder_readout"}
    freeze(net, ["decoder"])
    assert not any(p.requires_grad for p in net.parameters())


# ── trainings ─────────────────────────────────────────────────────────────────────────────────────────────────────────
