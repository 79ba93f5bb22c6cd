"""Subword regularization: other pieces in each epoch, the same texts, and nothing that grows beyond its limit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from sourcewise.config import DataConfig, DatasetConfig, SubwordSamplingConfig
from sourcewise.data.encoding import Encoded, ExampleSet
from sourcewise.data.examples import Dataset, Example
from sourcewise.data.mixtures import EncodedMixture
from sourcewise.data.noise.segmentation import Resegmented, resegmented
from sourcewise.data.readers.plain_text import encode_set, read_documents
from sourcewise.data.tokenizers.segmentations import segmentations
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import Notice, RequestError
from tests.data.tokenizers.tokenizer_classes import ENGLISH, GERMAN, LANGUAGES, OTHERS

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
    rows = [
        [ids.tolist() for ids in drawn(examples, seed=seed).at(epoch).targets] for seed in (0, 0, 1) for epoch in (3, 4)
    ]
    assert rows[0] == rows[2] and rows[1] == rows[3]
    assert rows[0] != rows[1] and rows[0] != rows[4]
    sampled = drawn(examples)
    assert [ids.tolist() for ids in sampled.at(7).at(3).targets] == rows[0]  # an epoch's set knows the others


def test_shares_are_those_of_the_model() -> None:
    made = tokenizer()
    word = made.encode("Bushaltestelle")[:-1]
    ways, shares = segmentations(made, SubwordSamplingConfig(alpha=0.3, best=8)).of(word)
    assert len(ways) == 8 and shares.sum() == pytest.approx(1) and shares.argmax() == ways.index(word)
    examples = encoded(["Bushaltestelle"] * 4000, made)
    counts = Counter(
        tuple(ids[:-1].tolist()) for epoch in range(5) for ids in drawn(examples, 0.3, best=8).at(epoch).targets
    )
    for way, share in zip(ways, shares, strict=True):
        assert counts[tuple(way)] / 20_000 == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 20_000) + 1e-4)
    sharp = segmentations(made, SubwordSamplingConfig(alpha=1.0)).of(word)[1]
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


def test_plain_text_beside_pairs_is_told(tmp_path: Path) -> None:
    made = Tokenizer.train(TEXTS * 20, 200, special=[f"<extra_id_{i}>" for i in range(100)])
    (tmp_path / "plain.txt").write_text("\n".join(TEXTS * 20), encoding="utf-8")
    config = DatasetConfig(text=str(tmp_path / "plain.txt"), max_source=16)
    plain = encode_set(read_documents(tmp_path / "plain.txt", config), made, DataConfig())
    with pytest.warns(Notice, match=r"plain\.txt is plain text, which is cut into pieces once"):
        found = drawn(EncodedMixture([encoded(TEXTS, made), plain]))
    assert isinstance(found.parts[0], Resegmented) and found.parts[1] is plain


@given(st.lists(st.text(st.sampled_from("abc \n1é"), max_size=12), min_size=1, max_size=6), st.integers(0, 5))
def test_any_text_is_spelled_the_same(texts: list[str], epoch: int) -> None:
    made = ANY
    examples = encoded(texts, made)
    for ids, plain in zip(drawn(examples, 0.05).at(epoch).targets, examples.targets, strict=True):
        assert made.decode(ids) == made.decode(plain)


ANY = Tokenizer.train(["abc abcé cab\nbca 11 ab ac bc a b c é 1"] * 30, 60)


def pairs(tmp_path: Path, kind: str) -> Tokenizer:
    """A tokenizer of merged pairs, byte-level or with a mark for spaces, trained by its own library."""
    made = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    if kind == "bytes":
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    else:
        made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet() if kind == "bytes" else []
    made.train_from_iterator(
        TEXTS * 20,
        trainers.BpeTrainer(vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    made.save(str(tmp_path / "tokenizer.json"))
    return Tokenizer.load(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("kind", ["bytes", "spaces"])
def test_merges_are_left_out(kind: str, tmp_path: Path) -> None:
    made = pairs(tmp_path, kind)
    examples = encoded(TEXTS, made)
    sampled = drawn(examples, None, dropout=0.2)
    lengths = []
    for epoch in range(4):
        now = sampled.at(epoch)
        assert [made.decode(ids) for ids in now.targets] == [made.decode(ids) for ids in examples.targets]
        assert [made.decode(ids) for ids in now.sources or ()] == [made.decode(ids) for ids in examples.sources or ()]
        lengths.append(now.target_lengths.sum())
    assert len(set(lengths)) > 1 and min(lengths) > examples.target_lengths.sum()
    little = drawn(examples, None, dropout=0.01).at(0).target_lengths.sum()
    assert examples.target_lengths.sum() <= little < min(lengths)


def test_without_dropout_merges_give_the_tokenizers_own_pieces(tmp_path: Path) -> None:
    made = pairs(tmp_path, "bytes")
    known = segmentations(made, SubwordSamplingConfig(dropout=1e-9, best=2))
    for text in TEXTS[:2]:
        for word in text.split():
            ids = made.encode(f" {word}")[:-1]
            assert known.of(ids)[0] == [ids]


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("words", {"alpha": 0.1}, r"^train\.subword_sampling\.alpha: the tokenizer has whole words; leave it out$"),
        ("words", {"dropout": 0.1}, r"^train\.subword_sampling\.dropout: the tokenizer has whole words; leave"),
        (
            "subwords",
            {"dropout": 0.1},
            r"dropout: the tokenizer has pieces with .*; set train\.subword_sampling\.alpha",
        ),
        ("bytes", {"alpha": 0.1}, r"alpha: the tokenizer has merged pairs \(BPE\); set .*sampling\.dropout alone$"),
        ("subwords", {"alpha": 0.1, "dropout": 0.1}, r"set train\.subword_sampling\.alpha alone$"),
    ],
)
def test_an_option_of_another_tokenizer_is_refused(kind: Any, options: Any, said: str, tmp_path: Path) -> None:
    made = pairs(tmp_path, kind) if kind == "bytes" else Tokenizer.train(TEXTS, 200, kind)
    with pytest.raises(RequestError, match=said):
        drawn(encoded(TEXTS, made), **{"alpha": None, **options})


DRAWN = {name: ["alpha"] for name in ("mbart", "mbart50", "t5", "mt5", "pegasus")}
DRAWN |= {name: ["dropout"] for name in ("nllb", "bart")}


@pytest.mark.filterwarnings("ignore::sourcewise.errors.DataWarning")
@pytest.mark.parametrize("name", {**LANGUAGES, **OTHERS})
def test_pieces_of_transformers_classes(name: str, tmp_path: Path) -> None:
    """Texts stay for each class that can be drawn from; the others are refused in a line."""
    {**LANGUAGES, **OTHERS}[name](tmp_path)
    made = Tokenizer.load(tmp_path)
    examples = encoded([*ENGLISH, *GERMAN], made)
    done = []
    for option, options in (("alpha", {"alpha": 0.02}), ("dropout", {"alpha": None, "dropout": 0.4})):
        try:
            epochs = [drawn(examples, **options).at(epoch) for epoch in range(4)]
        except RequestError as error:
            assert "\n" not in str(error) and "train.subword_sampling" in str(error)
            continue
        done.append(option)
        assert len({(*now.source_lengths, *now.target_lengths) for now in epochs}) > 1
        for now in epochs:
            for side, plain in ((now.sources, examples.sources), (now.targets, examples.targets)):
                assert side is not None and plain is not None
                assert [made.decode(ids) for ids in side] == [made.decode(ids) for ids in plain]
                assert [made.unk_id in ids for ids in side] == [made.unk_id in ids for ids in plain]
    assert done == DRAWN.get(name, [])
