"""Source bits: who is paired with whom, and what the figure is where it is known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sourcewise.config import DataConfig
from sourcewise.data.encoding import Encoded
from sourcewise.data.examples import Dataset, Example
from sourcewise.data.layout import Layout
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.evaluation.source_bits import SourceBits, partners, source_bits
from sourcewise.model.blocks.memory import Memory
from sourcewise.model.protocol import token_nats
from tests.model.networks import DIMS, VOCABULARY, network

TOKENIZER = Tokenizer.train(["a b c d e f"] * 3, VOCABULARY)


def texts(sources: Sequence[str], targets: Sequence[str] | None = None) -> Encoded:
    given_ = targets or ["c d e"] * len(sources)
    examples = [Example(str(i), t, s) for i, (s, t) in enumerate(zip(sources, given_, strict=True))]
    return Encoded(Dataset(examples), TOKENIZER, DataConfig())


def features(matrices: list[np.ndarray], **data: int) -> Encoded:
    examples = [Example(str(i), "c d e", frames=len(m)) for i, m in enumerate(matrices)]
    dataset = Dataset(examples, dims=DIMS, read=lambda i: matrices[i])
    return Encoded(dataset, TOKENIZER, DataConfig.model_validate(data))


@settings(deadline=None)
@given(st.lists(st.text("abcd", min_size=1, max_size=12), min_size=1, max_size=25))
def test_partners_differ_and_none_that_differs_is_nearer(sources: list[str]) -> None:
    encoded = texts(sources)
    assert encoded.sources is not None
    ids, lengths = encoded.sources, encoded.source_lengths
    for i, j in enumerate(partners(encoded)):
        gaps = [abs(lengths[k] - lengths[i]) for k in range(len(ids)) if ids[k] != ids[i]]
        if j < 0:
            assert not gaps
        else:
            assert ids[j] != ids[i]
            assert abs(lengths[j] - lengths[i]) == min(gaps)


def test_partners_of_features_are_told_apart_by_what_is_read() -> None:
    draw = np.random.default_rng(0)
    first, second = (draw.normal(size=(6, DIMS)).astype(np.float32) for _ in range(2))
    assert partners(features([first, first, second])).tolist() == [2, 2, 1]
    longer = np.concatenate([first, second])
    assert partners(features([first, longer], max_frames=6)).tolist() == [-1, -1]  # the same once cut
    assert partners(features([first, longer])).tolist() == [1, 0]


def test_a_thousand_equal_sources_take_no_time() -> None:
    matrix = np.ones((4, DIMS), dtype=np.float32)
    reads = []
    examples = [Example(str(i), "c", frames=4) for i in range(1000)]
    dataset = Dataset(examples, dims=DIMS, read=lambda i: reads.append(i) or matrix)  # type: ignore[func-returns-value]
    assert set(partners(Encoded(dataset, TOKENIZER, DataConfig()))) == {-1}
    assert len(reads) <= 2 * len(examples)


class _Deaf(torch.nn.Module):
    """A network whose memory is the same whatever the source."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()
        self.start_id, self.eos_id, self.pad_id = self.inner.start_id, self.inner.eos_id, self.inner.pad_id
        self.dims = 0

    def encode(self, source: object) -> Memory:
        states = torch.ones(len(source), 1, 24)  # type: ignore[arg-type]
        return self.inner.body.keep(self.inner.body.bypass(states, Layout.whole(len(states), 1)))

    def decode(self, tokens: Tensor, memory: Memory, cache: None = None) -> Tensor:
        return self.inner.decode(tokens, memory, cache)


SOURCES = ["a b", "c", "d e f a", "b b b", "f e d c b a"]


def test_a_network_that_ignores_its_source_gives_exactly_nothing() -> None:
    found = source_bits(_Deaf(), texts(SOURCES))  # type: ignore[arg-type]
    assert np.array_equal(found.nats, found.shuffled)
    assert found.bits == 0.0 and found.ci95() == (0.0, 0.0)


def test_nats_are_those_of_teacher_forcing_whatever_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    net, encoded = network(), texts(SOURCES, ["a", "b c", "d e f", "a a a a", "f"])
    found = source_bits(net, encoded)
    with torch.inference_mode():
        for i, j in enumerate(partners(encoded)):
            labels = encoded.batch([i]).labels
            for row, expected in ((i, found.nats[i]), (j, found.shuffled[i])):
                memory = net.encode(encoded.batch([row]).source)
                assert float(token_nats(net, memory, labels).sum()) == pytest.approx(expected, abs=1e-4)
    monkeypatch.setattr("sourcewise.model.protocol.TOKENS_AT_A_TIME", 1)
    small = source_bits(net, encoded, batch_tokens=1)
    np.testing.assert_allclose(small.nats, found.nats, atol=1e-4)
    np.testing.assert_allclose(small.shuffled, found.shuffled, atol=1e-4)
    assert found.bits == pytest.approx((found.loss_shuffled - found.loss) / math.log(2))


def test_where_all_sources_are_equal_there_is_nothing_to_know() -> None:
    for sources in (["a b"] * 4, ["a"]):
        found = source_bits(network(), texts(sources))
        assert math.isnan(found.bits) and math.isnan(found.loss_shuffled)
        assert all(map(math.isnan, found.ci95()))
        assert math.isfinite(found.loss)


@given(st.integers(0, 1000), st.integers(1, 60))
def test_the_interval_brackets_the_figure(seed: int, size: int) -> None:
    draw = np.random.default_rng(seed)
    tokens = draw.integers(1, 9, size).astype(float)
    nats = draw.uniform(0, 5, size) * tokens
    gained = draw.normal(1, 1, size) * tokens
    gained[draw.random(size) < 0.2] = np.nan  # without a partner
    gained[0] = 1.0
    found = SourceBits(nats, nats + gained, tokens)
    low, high = found.ci95()
    assert low <= found.bits + 1e-9 and found.bits <= high + 1e-9
