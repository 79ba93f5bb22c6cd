"""Many texts are encoded by their words; the ids are those of each text alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sourcewise.data.tokenizers import words
from sourcewise.data.tokenizers.fast import Fast
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from tests.data.tokenizers.t5_tokenizers import fast_t5_folder, t5_folder
from tests.data.tokenizers.tokenizer_classes import ENGLISH, GERMAN, LANGUAGES, OTHERS

TEXTS = [*ENGLISH, *GERMAN, "Ça va? (oui) “non”", "日本語の文 \n\t x", "हिन्दी में", "e\u0301tude"]
ODD = [
    *("a", "cat", "the", "saß", "Ωmega", "x", "1", "2", ",", "don't", "stop.", "▁", "▁a", "a▁b", "日本", "में", "é"),
    *("e\u0301", "\u0301", "\u0301a", "a\u0301", "\u00a8", "\u00a0", "\u3000", "\u200d", "\u200b", "\u0d4e", "ﬁ", "½"),
    *("", "", "</s>", "<pad>", "x</s>y", "<unk>", "<x>", "a<x>", "\n", "a\nb", "\t", "\r\n", "new york", "[SEP]", "＜"),
    *("\0", "\x1a", "\ufeff", "‿", "w" * 50, "\u0600", "\u1100\u1161", "👩\u200d👧", "<extra_id_0>", "𝄞", "\u0345"),
]


def ours(unit: str, special: tuple[str, ...] = (), added: tuple[str, ...] = ()) -> Callable[[Path], Tokenizer]:
    return lambda _: Tokenizer.train(TEXTS, 120, unit, special).add(added)  # type: ignore[arg-type]


def folder(make: Callable[[Path], object]) -> Callable[[Path], Tokenizer]:
    def opened(place: Path) -> Tokenizer:
        make(place)
        return Tokenizer.load(place)

    return opened


MADE = {
    "subwords": ours("subwords"),
    "words": ours("words"),
    "characters": ours("characters"),
    "sentinels": ours("subwords", ("<extra_id_0>", "<extra_id_1>")),
    "added": ours("subwords", added=("<x>", "\n", "saß")),
    "added with a space": ours("subwords", added=("the cat", "new york")),
    "t5": folder(t5_folder),
    "t5, saved": folder(fast_t5_folder),
    **{name: folder((LANGUAGES | OTHERS)[name]) for name in ("nllb", "mbart", "mt5", "bert", "bart", "end")},
}


@pytest.fixture(scope="module", params=MADE)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return MADE[request.param](tmp_path_factory.mktemp("tokenizer"))


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), other=st.lists(st.text(max_size=9), max_size=4), gap=st.sampled_from([" ", "  "]))
def test_many_texts_have_the_ids_of_each_alone(tokenizer: Tokenizer, seed: int, other: list[str], gap: str) -> None:
    draw = random.Random(seed)
    texts = [" ".join(draw.choices([*ODD, *other], k=draw.randrange(6))) for _ in range(words.FEW)]
    texts += [f"the cat{gap}sat", gap + "the", "the" + gap, *(text for text in other)]
    for target in (False, True):
        assert tokenizer.encode_batch(texts, target=target) == [tokenizer.encode(text, target=target) for text in texts]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that the library is given from now on."""
    given: list[str] = []
    encode = Fast._encode

    def counts(self: Fast, texts: list[str]) -> list[list[int]]:
        given.extend(texts)
        return encode(self, texts)

    monkeypatch.setattr(Fast, "_encode", counts)
    return given


@pytest.mark.parametrize("name", ["subwords", "words", "characters", "t5", "t5, saved", "bert"])
def test_known_words_are_looked_up(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*ENGLISH, *GERMAN] * 50
    opened = MADE[name](tmp_path)
    opened.encode_batch(texts)
    given = counted(monkeypatch)
    found = opened.encode_batch(texts[:250])
    assert not given and found == [opened.encode(text) for text in texts[:250]]
    assert opened.encode_batch([*texts, "unheard of"])[-1] == opened.encode("unheard of")


def test_no_words_are_learned_of_texts_without_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Tokenizer.train(TEXTS, 120)
    given = counted(monkeypatch)
    texts = [f"日本{i}語の文" for i in range(500)]
    assert opened.encode_batch(texts) == opened.encode_batch(texts)
    assert sorted(given) == sorted([*texts, *texts, words.NEIGHBOUR, words.NEIGHBOUR])


def test_words_beyond_the_most_are_encoded_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "MOST", 4)
    opened = Tokenizer.train(TEXTS, 120)
    texts = [*ENGLISH, *GERMAN] * 50
    for _ in range(2):
        assert opened.encode_batch(texts) == [opened.encode(text) for text in texts]


@pytest.mark.parametrize(
    ("step", "other"),
    [
        ('"split": true', '"split": false'),
        ('"prepend_scheme": "first"', '"prepend_scheme": "never"'),
        ('"Regex": "\\\\A "', '"Regex": "t c"'),
    ],
)
def test_steps_that_look_beyond_a_word_are_not_for_words(step: str, other: str, tmp_path: Path) -> None:
    Tokenizer.train(TEXTS, 120).save(tmp_path / "tokenizer.json")
    text = (tmp_path / "tokenizer.json").read_text()
    assert step in text
    (tmp_path / "tokenizer.json").write_text(text.replace(step, other))
    opened = Tokenizer.load(tmp_path / "tokenizer.json")
    texts = ["the cat sat", "a cat", "cat a the", "x  y "] * 80
    assert opened.encode_batch(texts) == [opened.encode(text) for text in texts]
    assert Fast.load(tmp_path / "tokenizer.json")._words is None
