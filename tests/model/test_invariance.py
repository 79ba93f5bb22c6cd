"""No example depends on padding or on its neighbours; no token on its future. Over families, bridges and routes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sourcewise.config import GenerationConfig
from sourcewise.data.batches import IGNORED, Batch, Source
from sourcewise.generation.generate import search
from sourcewise.model.inputs.registry import BRIDGES
from sourcewise.model.network import Seq2Seq
from sourcewise.model.protocol import token_nats
from tests.generation.searching import beam_search, greedy_or_sample
from tests.model.networks import FAMILIES, VOCABULARY, feature_source, loss, network, rows, text_source

Kind = tuple[str | None, str, str]  # bridge, route, family
KINDS: list[Kind] = [
    (None, "encoder", "t5"),
    *((bridge, route, "t5") for bridge in BRIDGES for route in ("encoder", "bypass")),
    *((None, "encoder", family) for family in FAMILIES),
    *(("convolution", route, "bart") for route in ("encoder", "bypass")),
    ("projection", "encoder", "marian"),
]
NETWORKS = {kind: network(kind[0], kind[1], family=kind[2]) for kind in KINDS}
lengths = st.lists(st.integers(1, 14), min_size=2, max_size=5)


def source_of(bridge: str | None, sizes: list[int], prompted: bool, extra: int = 0) -> Source:
    if bridge is None:
        return text_source(sizes, max(sizes) + extra)
    prompts = [1 + size % 4 for size in sizes] if prompted else None
    return feature_source(sizes, prompts, max(sizes) + extra)


def targets(count: int, time: int = 6) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (count, time), generator=torch.Generator().manual_seed(5))


def logits(net: Seq2Seq, source: Source, tokens: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return net.decode(tokens, net.encode(source))


@pytest.mark.parametrize("kind", KINDS, ids=str)
@settings(max_examples=15, deadline=None)
@given(sizes=lengths, extra=st.integers(1, 9), prompted=st.booleans())
def test_padding_changes_nothing(kind: Kind, sizes: list[int], extra: int, prompted: bool) -> None:
    tokens = targets(len(sizes))
    tight = logits(NETWORKS[kind], source_of(kind[0], sizes, prompted), tokens)
    wide = logits(NETWORKS[kind], source_of(kind[0], sizes, prompted, extra), tokens)
    torch.testing.assert_close(wide, tight, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@settings(max_examples=15, deadline=None)
@given(sizes=lengths, prompted=st.booleans())
def test_neighbours_change_nothing(kind: Kind, sizes: list[int], prompted: bool) -> None:
    source, tokens = source_of(kind[0], sizes, prompted), targets(len(sizes))
    together = logits(NETWORKS[kind], source, tokens)
    for i in range(len(sizes)):
        alone = logits(NETWORKS[kind], rows(source, [i]), tokens[[i]])
        torch.testing.assert_close(alone[0], together[i], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@settings(max_examples=10, deadline=None)
@given(sizes=lengths, at=st.integers(1, 5))
def test_the_future_changes_nothing_and_the_past_does(kind: Kind, sizes: list[int], at: int) -> None:
    source, tokens = source_of(kind[0], sizes, False), targets(len(sizes))
    changed = tokens.clone()
    changed[:, at] = (changed[:, at] + 1 - 3) % (VOCABULARY - 3) + 3
    before, after = logits(NETWORKS[kind], source, tokens), logits(NETWORKS[kind], source, changed)
    torch.testing.assert_close(after[:, :at], before[:, :at], atol=1e-5, rtol=0)
    assert (after[:, at:] - before[:, at:]).abs().amax(dim=(1, 2)).min() > 1e-4


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_part_of_the_source_reaches_the_logits(kind: Kind) -> None:
    source, tokens = source_of(kind[0], [9, 9], False), targets(2)
    before = logits(NETWORKS[kind], source, tokens)
    for place in range(9):
        changed = source_of(kind[0], [9, 9], False)
        if changed.features is not None:
            changed.features[:, place] += 1.0
        else:
            assert changed.tokens is not None
            changed.tokens[:, place] = (changed.tokens[:, place] + 1 - 3) % (VOCABULARY - 3) + 3
        assert (logits(NETWORKS[kind], changed, tokens) - before).abs().max() > 1e-4


@pytest.mark.parametrize(
    "kind",
    [
        (None, "encoder", "t5"),
        ("perceiver", "bypass", "t5"),
        (None, "encoder", "bart"),
        ("convolution", "encoder", "bart"),
    ],
    ids=str,
)
@settings(max_examples=8, deadline=None)
@given(sizes=lengths)
def test_searches_do_not_depend_on_the_batch(kind: Kind, sizes: list[int]) -> None:
    net, source = NETWORKS[kind], source_of(kind[0], sizes, False)
    with torch.inference_mode():
        memory = net.encode(source)
        for options in (
            GenerationConfig(beams=1, max_new_tokens=8),
            GenerationConfig(beams=3, max_new_tokens=8),
            GenerationConfig(beams=1, max_new_tokens=8, sample=True, seed=4),
        ):
            for i in range(len(sizes)):
                alone = net.encode(rows(source, [i]))
                if options.beams == 1:
                    every = greedy_or_sample(net, memory, options, list(range(len(sizes))))
                    one = greedy_or_sample(net, alone, options, [i])
                else:
                    every = [b[0] for b in beam_search(net, memory, options)]
                    one = [beam_search(net, alone, options)[0][0]]
                assert one[0].ids == every[i].ids
                assert one[0].score == pytest.approx(every[i].score, abs=1e-3)


@pytest.mark.parametrize(
    "kind", [(None, "encoder", "t5"), ("convolution", "encoder", "t5"), (None, "encoder", "marian")], ids=str
)
@settings(max_examples=8, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=3, max_size=40), crowd=st.integers(1, 7), beams=st.sampled_from([1, 3])
)
def test_stragglers_go_on_with_those_of_other_batches(kind: Kind, sizes: list[int], crowd: int, beams: int) -> None:
    net, source = NETWORKS[kind], source_of(kind[0], sizes, False)
    options = GenerationConfig(beams=beams, max_new_tokens=27)
    crowds = [list(range(i, min(i + crowd, len(sizes)))) for i in range(0, len(sizes), crowd)]
    with torch.inference_mode():
        together = search(net, [(list(range(len(sizes))), net.encode(source))], options)
        entering = search(net, [(c, net.encode(rows(source, c))) for c in crowds], options)
    assert sorted(entering) == list(range(len(sizes)))
    for i, (hypothesis,) in together.items():
        (other,) = entering[i]
        assert other.ids == hypothesis.ids
        assert other.score == pytest.approx(hypothesis.score, abs=1e-3)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_cache_gives_what_teacher_forcing_gives(kind: Kind) -> None:
    net, source, tokens = NETWORKS[kind], source_of(kind[0], [5, 8, 2], True), targets(6, 7)
    with torch.inference_mode():
        memory = net.encode(source)
        whole = net.decode(tokens, memory)  # 3 sources × 2 beams
        cache = net.new_cache(memory, 2, 7)
        parts = [net.decode(tokens[:, a:b], memory, cache) for a, b in ((0, 1), (1, 4), (4, 7))]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_loss_is_the_cross_entropy_of_the_logits(smoothing: float, precision: torch.dtype) -> None:
    net = network(activation="gated-gelu").to(precision)
    source, labels = text_source([5, 3, 7]), targets(3)
    labels[1, 4:] = IGNORED
    nats, count = loss(net, Batch(source, labels, [0, 1, 2]), smoothing)
    memory = net.encode(source)
    shifted = torch.cat((torch.zeros(3, 1, dtype=torch.long), labels[:, :-1]), 1).masked_fill_(torch.tensor(False), 0)
    expected = torch.nn.functional.cross_entropy(
        net.decode(shifted.clamp(min=0), memory).flatten(0, 1).float(),
        labels.flatten(),
        reduction="sum",
        label_smoothing=smoothing,
    )
    assert count == 16
    nats, expected = nats.detach(), expected.detach()
    assert float(nats) == pytest.approx(float(expected), rel=1e-4 if precision == torch.float32 else 2e-2)
    if smoothing == 0:
        assert float(token_nats(net, memory, labels).sum().detach()) == pytest.approx(float(nats), rel=2e-2)


def test_the_gradient_of_the_loss_is_that_of_the_cross_entropy() -> None:
    net, source, labels = network(), text_source([5, 3, 7]), targets(3)
    (loss(net, Batch(source, labels, [0, 1, 2]), 0.1)[0] / 18).backward()
    mine = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    shifted = torch.cat((torch.zeros(3, 1, dtype=torch.long), labels[:, :-1]), 1)
    logits_ = net.decode(shifted, net.encode(source)).flatten(0, 1)
    torch.nn.functional.cross_entropy(logits_, labels.flatten(), label_smoothing=0.1).backward()
    for name, parameter in net.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(mine[name], parameter.grad, atol=1e-5, rtol=1e-3, msg=name)
