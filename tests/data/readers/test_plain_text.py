from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sourcewise.config import DataConfig, DatasetConfig
from sourcewise.data.noise.denoising import MODES, special_tokens
from sourcewise.data.open import open_dataset
from sourcewise.data.readers.plain_text import Denoised, encode_set
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError

WORDS = ("a", "dog", "cat", "runs", "sits", "over", "under", "the", "street", "bridge", "and", "sleeps")
DATA = DataConfig(max_source=64, max_target=64)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """300 documents of random words."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("".join(" ".join(rng.choice(WORDS, rng.integers(3, 30))) + "\n" for _ in range(300)))
    return path


@pytest.fixture(scope="module")
def tokenizer(corpus) -> Tokenizer:
    special = special_tokens(DatasetConfig(text=str(corpus), denoise="ul2"), DATA)
    return Tokenizer.train(corpus.read_text().splitlines(), 100, special=special)


@pytest.fixture(scope="module")
def span(corpus, tokenizer) -> Denoised:
    return denoised(corpus, tokenizer)


@pytest.fixture(scope="module")
def ul2(corpus, tokenizer) -> Denoised:
    return denoised(corpus, tokenizer, denoise="ul2")


def denoised(path, tokenizer, data=DATA, seed=0, **options) -> Denoised:
    dataset = open_dataset(DatasetConfig(text=str(path), **options), data)
    encoded = encode_set(dataset, tokenizer, data, seed)
    assert isinstance(encoded, Denoised)
    return encoded


def merged(encoded: Denoised, index: int) -> list[int]:
    """The piece that an example was made of."""
    source, target = encoded.sources[index].tolist()[:-1], encoded.targets[index].tolist()[:-1]
    source = source[next((1 for mode in MODES if source[0] == encoded.tokenizer.encode(mode)[0]), 0) :]
    sentinels = set(encoded.tokenizer.sentinels)
    if not sentinels & set(target):
        return source + target
    cuts = [i for i, token in enumerate(target) if token in sentinels]
    spans = {target[i]: target[i + 1 : j] for i, j in zip(cuts, [*cuts[1:], None], strict=True)}
    return [each for token in source for each in spans.get(token, [token])]


# ── documents ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_document_a_line(write_text):
    path = write_text("x.txt", "First one.\n\n  \nSecond\r\nThird\n")
    dataset = open_dataset(DatasetConfig(text=str(path)))
    assert [(e.id, e.source, e.target) for e in dataset] == [
        ("1", "", "First one."),
        ("4", "", "Second"),
        ("5", "", "Third"),
    ]
    assert dataset[1].where == f"{path}:4" and dataset.plain is not None
    assert [e.target for e in open_dataset(DatasetConfig(text=str(path), limit=4, lowercase=True))] == [
        "first one.",
        "second",
    ]


def test_columns_one_after_the_other(write_text, write_jsonl):
    path = write_text("x.tsv", "source\ttarget\na dog\tein Hund\na cat\t\n")
    both = open_dataset(DatasetConfig(text=str(path), source="source", target="target"))
    assert [(e.target, e.where) for e in both] == [
        ("a dog", f"{path}:2"),
        ("a cat", f"{path}:3"),
        ("ein Hund", f"{path}:2"),
    ]
    one = open_dataset(DatasetConfig(text=str(path), target="target", limit=1))
    assert [e.target for e in one] == ["ein Hund"]
    lines = write_jsonl("x.jsonl", {"text": "one"}, {"text": "two"})
    assert [e.target for e in open_dataset(DatasetConfig(text=str(lines)))] == ["one", "two"]


def test_documents_that_cannot_be_read(write_text):
    def refused(name: str, content: str, match: str, **options: str) -> None:
        with pytest.raises(RequestError, match=match):
            open_dataset(DatasetConfig(text=str(write_text(name, content)), **options))

    refused("x.tsv", "source\ttarget\na\tb\n", r"no column 'text'; it has: source, target")
    refused("x.txt", "a\n", r"x.txt: has no column 'de': of a .txt each line is a document", target="de")
    refused("x.txt", "\n \n", r"x.txt: no examples")
    with pytest.raises(RequestError, match="no such file"):
        open_dataset(DatasetConfig(text="nowhere.txt"))


def test_options_that_do_not_go_together():
    for options, line in {
        (("pairs", "x.tsv"), ("denoise", "ul2")): "go with text",
        (("pairs", "x.tsv"), ("mean_span", 5)): "go with text",
        (("text", "x.txt"), ("prefix", "fill: ")): "no sources to put a prefix",
        (("text", "x.txt"), ("denoise", "ul2"), ("noise_density", 0.3)): "UL2's denoisers have their own",
    }.items():
        with pytest.raises(ValueError, match=line):
            DatasetConfig.model_validate(dict(options))


# ── pieces ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_source_fills_the_budget(span):
    assert set(span.source_lengths) == {64}
    dropped, spans = span.denoisers[0].drops(int(span.pieces[0]))
    assert set(span.target_lengths) == {dropped + spans + 1}
    for i in range(len(span)):
        assert len(span.sources[i]) == 64 and len(span.targets[i]) == span.target_lengths[i]
        assert span.sources[i][-1] == span.targets[i][-1] == span.tokenizer.eos_id


@pytest.mark.parametrize("kind", ["span", "ul2"])
def test_an_epoch_is_the_text_from_somewhere_on_each_token_once(kind, request):
    encoded = request.getfixturevalue(kind).at(3)
    ring = encoded.tokens.tolist()
    pieces = [merged(encoded, i) for i in range(len(encoded))]
    whole = [token for piece in pieces for token in piece]
    assert len(ring) - int(encoded.pieces.sum()) < len(whole) <= len(ring)
    doubled = ring + ring
    assert any(doubled[start : start + len(whole)] == whole for start in range(len(ring)))


def test_ul2_mixes_its_denoisers_evenly(ul2):
    for epoch in (0, 1):
        encoded = ul2.at(epoch)
        assert set(Counter(encoded.kinds.tolist()).values()) == {len(encoded) // 7}
        first = Counter(int(encoded.sources[i][0]) for i in range(len(encoded)))
        shares = [first[ul2.tokenizer.encode(mode)[0]] / len(encoded) for mode in MODES]
        assert shares == pytest.approx([2 / 7, 4 / 7, 1 / 7])
    sequential = np.array([d.sequential for d in ul2.denoisers])[ul2.kinds]
    assert set(ul2.source_lengths[~sequential]) == {64}
    assert ul2.source_lengths[sequential].max() < 64
    assert [len(ul2.sources[i]) for i in range(len(ul2))] == ul2.source_lengths.tolist()
    assert [len(ul2.targets[i]) for i in range(len(ul2))] == ul2.target_lengths.tolist()


def test_prefixes_are_drawn_from_half_to_nearly_whole(ul2):
    drawn = np.concatenate(
        [e.dropped[np.array([d.sequential for d in e.denoisers])[e.kinds]] for e in map(ul2.at, range(400))]
    )
    tokens = 62  # 64 without mode and end of text
    assert (drawn.min(), drawn.max()) == (1, tokens // 2 - 1)
    assert drawn.mean() == pytest.approx(tokens / 4, rel=0.05)  # µ = L/4, r = 0.25


@pytest.mark.parametrize("kind", ["span", "ul2"])
def test_draws_belong_to_seed_epoch_and_piece(kind, request, corpus, tokenizer):
    encoded = request.getfixturevalue(kind)
    again = denoised(corpus, tokenizer, denoise=kind).at(5)
    whole, part = encoded.at(5).batch(range(len(again))), again.batch([9, 2])
    for row, i in enumerate((9, 2)):
        size, longest = again.source_lengths[i], again.target_lengths[i]
        assert part.source.tokens[row, :size].tolist() == whole.source.tokens[i, :size].tolist()
        assert part.labels[row, :longest].tolist() == whole.labels[i, :longest].tolist()
    chosen = again.select([9, 2])
    assert chosen.at(6).targets[0].tolist() == again.at(6).targets[9].tolist()
    assert chosen.sources[1].tolist() == again.sources[2].tolist()
    assert chosen.source_lengths.tolist() == again.source_lengths[[9, 2]].tolist()
    assert [e.id for e in chosen.dataset] == ["10", "3"]
    for other in (encoded.at(6), denoised(corpus, tokenizer, seed=1, denoise=kind).at(5)):
        assert [s.tolist() for s in other.sources] != [s.tolist() for s in again.sources]


def test_a_corpus_shorter_than_a_piece(write_text, tokenizer):
    path = write_text("short.txt", "a dog runs\n")
    for kind in ("span", "ul2"):
        encoded = denoised(path, tokenizer, denoise=kind)
        assert len(encoded) == (1 if kind == "span" else 7)
        assert all(len(merged(encoded, i)) == len(encoded.tokens) for i in range(len(encoded)))
    with pytest.raises(RequestError, match=r"short.txt: 1 tokens of text"):
        denoised(write_text("short.txt", "a\n"), tokenizer)


def test_special_tokens_that_a_text_spells_are_left_out(write_text, tokenizer):
    plain = denoised(write_text("x.txt", "a dog runs over the street\n"), tokenizer)
    spelt = denoised(write_text("y.txt", "a dog <extra_id_3> runs</s> over [NLU] the street\n"), tokenizer)
    assert spelt.tokens.tolist() == plain.tokens.tolist()
    assert spelt.tokens.dtype == np.int32


def test_examples_for_people(span, ul2):
    example = span.dataset[0]
    assert example.source.count("<extra_id_") == (span.sources[0] > span.tokenizer.sentinels[-1] - 1).sum()
    assert example.target == span.tokenizer.decode(span.targets[0]) and "<" not in example.target
    assert set(example.source.split()) - {f"<extra_id_{i}>" for i in range(100)} <= {
        *WORDS,
        *"abcdefghijklmnopqrstuvwxyz",
    }
    assert {e.source.split()[0] for e in ul2.dataset} == set(MODES)
    assert len(span.dataset) == len(span) and example.where == f"{span.name}, piece 1"


# ── what does not fit ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_too_few_sentinels(corpus, tokenizer):
    data = DataConfig(max_source=2048, max_target=2048)
    with pytest.raises(
        RequestError, match=r"114 spans are dropped from a source of 2048 tokens, the tokenizer has 100"
    ):
        denoised(corpus, tokenizer, data)
    with pytest.raises(RequestError, match=r"has no sentinels \(<extra_id_0>, …\); leave data.tokenizer out"):
        denoised(corpus, Tokenizer.train(["a dog"], 40))


def test_lengths_that_do_not_fit(corpus, tokenizer):
    assert set(denoised(corpus, tokenizer, max_source=65).source_lengths) == {65}  # a set's own limits win
    with pytest.raises(RequestError, match=r"make targets of 63 tokens, max_target is 20; set it to 63"):
        denoised(corpus, tokenizer, DataConfig(max_source=64, max_target=20), denoise="ul2")


def test_no_room_for_spans(corpus, tokenizer):
    for size in range(1, 12):
        data = DataConfig(max_source=size)
        try:
            encoded = denoised(corpus, tokenizer, data, denoise="ul2")
        except RequestError as error:
            assert size < 8 and "leaves no room for spans; set 8 or more" in str(error)
        else:
            assert encoded.source_lengths.max() == size and encoded.target_lengths.min() >= 2


def test_ul2_needs_its_modes(corpus):
    plain = Tokenizer.train(["a dog runs"] * 9, 40, special=[f"<extra_id_{i}>" for i in range(99, -1, -1)])
    with pytest.raises(RequestError, match=r"the tokenizer has no \[NL[UG]\]|no \[S2S\]"):
        denoised(corpus, plain, denoise="ul2")
    spelt = Tokenizer.train(
        ["[NLU] [NLG] [S2S] a dog runs"] * 9, 60, special=[f"<extra_id_{i}>" for i in range(99, -1, -1)]
    )
    encoded = denoised(corpus, spelt, denoise="ul2")  # spelt in pieces, as in T5's own vocabulary
    assert set(encoded.source_lengths[~np.array([d.sequential for d in encoded.denoisers])[encoded.kinds]]) == {64}
