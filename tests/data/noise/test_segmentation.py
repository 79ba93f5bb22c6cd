"""Subword regularization: other pieces in each epoch, the same texts, and nothing that grows beyond its limit."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sourcewise.config import DataConfig, SubwordSamplingConfig
from sourcewise.data.encoding import Encoded, ExampleSet
from sourcewise.data.examples import Dataset, Example
from sourcewise.data.mixtures import EncodedMixture
from sourcewise.data.noise.segmentation import Resegmented, resegmented
from sourcewise.data.tokenizers.segmentations import Segmentations
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError

TEXTS = [
    "Zwei junge Männer stehen vor einem großen Gebäude .",
    "Ein Mann spielt Gitarre , während eine Frau ihm zuhört .",
    "Mehrere Menschen stehen\tan der Bushaltestelle und warten auf den Bus .",
    "Zwei Hunde spielen im Schnee , ein großer und ein kleiner .",
    "  zwei Leerzeichen am Anfang, und  mittendrin",
]


def tokenizer(vocabulary: int = 120) -> Tokenizer:
    return Tokenizer.train(TEXTS * 20, vocabulary)


def encoded(texts: list[str], made: Tokenizer, **options: int) -> Encoded:
    examples = [Example(str(i), text, source=text[::-1]) for i, text in enumerate(texts)]
    return Encoded(Dataset(examples, "made"), made, DataConfig(**options))


def drawn(
    examples: ExampleSet, alpha: float | None = 0.1, seed: int = 0, most: int = 512, **options: Any
) -> ExampleSet:
    return resegmented(examples, DataConfig(max_target=most), SubwordSamplingConfig(alpha=alpha, **options), seed)


def test_off_it_is_the_set_itself() -> None:
    examples = encoded(TEXTS, tokenizer())
    assert drawn(examples, None) is examples


def test_texts_stay_and_pieces_change() -> None:
    made = tokenizer()
    examples = encoded(TEXTS, made)
    sampled = drawn(examples)
    seen = set()
    for epoch in range(5):
        now = sampled.at(epoch)
        for side, plain in ((now.sources, examples.sources), (now.targets, examples.targets)):
            assert side is not None and plain is not None
            assert [made.decode(ids) for ids in side] == [made.decode(ids) for ids in plain]
            assert [ids[-1] for ids in side] == [made.eos_id] * len(TEXTS)
        assert now.target_lengths.tolist() == [len(ids) for ids in now.targets]
        assert now.source_lengths.tolist() == [len(ids) for ids in now.sources or ()]
        seen.add(tuple(tuple(map(int, ids)) for ids in now.targets))
    assert len(seen) == 5


def test_draws_are_functions_of_seed_and_epoch() -> None:
    examples = encoded(TEXTS, tokenizer())
    rows = [[ids.tolist() for ids in drawn(examples, seed=seed).at(epoch).targets] for seed in (0, 0, 1) for epoch in (3, 4)]
    assert rows[0] == rows[2] and rows[1] == rows[3]
    assert rows[0] != rows[1] and rows[0] != rows[4]
    sampled = drawn(examples)
    assert [ids.tolist() for ids in sampled.at(7).at(3).targets] == rows[0]  # an epoch's set knows the others


def test_shares_are_those_of_the_model() -> None:
    made = tokenizer()
    segmentations = Segmentations(made, 8)
    word = made.encode("Bushaltestelle")[:-1]
    ways, shares = segmentations.of(word, 0.3)
    assert len(ways) == 8 and shares.sum() == pytest.approx(1) and shares.argmax() == ways.index(word)
    examples = encoded(["Bushaltestelle"] * 4000, made)
    counts = Counter(tuple(ids[:-1].tolist()) for epoch in range(5) for ids in drawn(examples, 0.3, best=8).at(epoch).targets)
    for way, share in zip(ways, shares, strict=True):
        assert counts[tuple(way)] / 20_000 == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 20_000) + 1e-4)
    sharp = segmentations.of(word, 1.0)[1]
    assert sharp.max() > shares.max()


def test_only_sources_if_asked() -> None:
    examples = encoded(TEXTS, tokenizer())
    now = drawn(examples, targets=False).at(0)
    assert now.targets is examples.targets and now.target_lengths is examples.target_lengths
    assert [list(ids) for ids in now.sources or ()] != [list(ids) for ids in examples.sources or ()]


def test_a_text_beyond_its_limit_keeps_its_pieces() -> None:
    made = tokenizer()
    longest = max(len(ids) for ids in encoded(TEXTS, made).targets)
    examples = encoded(TEXTS, made, max_target=longest)
    sampled = drawn(examples, 0.01, most=longest)
    kept = set()
    for epoch in range(20):
        now = sampled.at(epoch)
        assert now.target_lengths.max() <= longest
        kept |= {i for i, ids in enumerate(now.targets) if list(ids) == list(examples.targets[i])}
    assert kept, "nothing was too long, so nothing was tested"


def test_special_and_unknown_tokens_stay() -> None:
    made = tokenizer().add(["<deu>"])
    (deu,) = made.fresh
    examples = encoded(["<deu> Zwei Hunde", "Zwei ☃ Hunde spielen"], made)
    usual = [list(ids) for ids in examples.targets]
    assert deu in usual[0] and made.unk_id in usual[1]
    for epoch in range(10):
        now = [ids.tolist() for ids in drawn(examples, 0.01).at(epoch).targets]
        assert now[0].count(deu) == 1 and now[1].count(made.unk_id) == usual[1].count(made.unk_id)


def test_a_mixture_keeps_its_rates() -> None:
    made = tokenizer()
    parts = [encoded(TEXTS, made), encoded(TEXTS[:2], made)]
    mixture = EncodedMixture(parts, [0.9, 0.1])
    now = drawn(mixture).at(1)
    assert isinstance(now, EncodedMixture) and now.weights is not None and mixture.weights is not None
    assert np.array_equal(now.weights, mixture.weights) and len(now) == 7
    assert all(isinstance(part, Resegmented) for part in now.parts)
    assert [list(ids) for ids in now.parts[0].targets][:2] != [list(ids) for ids in now.parts[1].targets]


@given(st.lists(st.text(st.sampled_from("abc \n1é"), max_size=12), min_size=1, max_size=6), st.integers(0, 5))
def test_any_text_is_spelled_the_same(texts: list[str], epoch: int) -> None:
    made = ANY
    examples = encoded(texts, made)
    for ids, plain in zip(drawn(examples, 0.05).at(epoch).targets, examples.targets, strict=True):
        assert made.decode(ids) == made.decode(plain)


ANY = Tokenizer.train(["abc abcé cab\nbca 11 ab ac bc a b c é 1"] * 30, 60)


@pytest.mark.parametrize("unit", ["words"])
def test_a_tokenizer_without_probabilities_is_refused(unit: str) -> None:
    made = Tokenizer.train(TEXTS, 200, unit)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"train\.subword_sampling\.alpha: .* has words"):
        drawn(encoded(TEXTS, made))
