from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sourcewise.data.tokenizers.tokenizer import Tokenizer

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEXTS = [
    *("A dog runs.", "Zwei Hunde laufen über die Straße, 1987!", "Ça va? (oui) “non”", "日本語の文", "e\u0301tude"),
    *(" ".join(WORDS[i % 10] for i in range(k, k + 5)) for k in range(40)),
]
ALPHABET = sorted({c for text in TEXTS for c in text})


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS, 200)


@pytest.mark.parametrize("name", ["</s>", "<pad>", "<unk>"])
@pytest.mark.parametrize("unit", ["subwords", "words", "characters"])
def test_texts_that_spell_a_special_token_can_be_trained_on(
    name: str, unit: Literal["subwords", "words", "characters"]
) -> None:
    """Its characters may be in no other text, and have no count."""
    trained = Tokenizer.train([f"ab {name} cd", "ab cd", name] * 3, 60, unit)
    assert trained.decode(trained.encode("ab cd")) == "ab cd"
    if unit != "words":
        assert trained.decode(trained.encode("<d/s>"[:2])) == "<d"


@given(text=st.text(st.sampled_from(ALPHABET), max_size=60))
@example(text="")
@example(text="  a  dog ")
def test_decode_undoes_encode(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


VIETNAMESE = unicodedata.normalize("NFD", "Tiếng Việt được người những")
KEPT = {
    "composed and not": ["caf\u00e9 cafe\u0301", VIETNAMESE, "\uac00 \u1100\u1161"],
    "what NFC takes apart": ["হ\u09df বা\u09dcি", "\u0958 \u0a59 \ufb2e", "\u212b \u2126 \u2f800"],
    "joiners": ["می\u200cخواهم", "क्\u200dष", "a\u200bb \u2060c \ufeffd"],
    "directions": ["שלום\u200f, a\u200e", "\u202babc\u202c", "\u2067x\u2069"],
    "emoji": ["👩\u200d👩\u200d👧 🇩🇪 👍🏽", "❤\ufe0f ❤", "🏴\u200d☠\ufe0f"],
    "other forms": ["ＡＢＣ　１２", "ﬁ ﬀ ½ ² ™ …", "Ⅳ ① ㎏"],
    "spaces": ["10\u00a0km \u202f! \u2009x\u3000y", "\u2003", "a\u0085b\u2028c\x0bd"],
    "blanks": ["a  b   c", " a", "  a ", "a ", " ", "   "],
    "layout": ["- a\n- b\n\n\t- c\n", "def f(x):\n    return x\n", "\n", "a\r\nb\rc", "\ta"],
    "marks of other programs": ["a▁b ▁c", "▅ \0 x", "a\u00ad\u00adb", "<b> &amp; </b> </", "\u2585\u2047"],
}


@pytest.mark.parametrize("unit", ["subwords", "characters", "words"])
@pytest.mark.parametrize("kind", KEPT)
def test_every_text_comes_back_as_it_is(kind, unit, tmp_path):
    transformers = pytest.importorskip("transformers")
    trained = Tokenizer.train([*KEPT[kind], "plain words"] * 3, 400, unit)
    trained.save(tmp_path)
    theirs, again = transformers.AutoTokenizer.from_pretrained(tmp_path), Tokenizer.load(tmp_path)
    for text in KEPT[kind]:
        ids = trained.encode(text)
        assert trained.decode(ids) == text and trained.unk_id not in ids
        assert theirs(text)["input_ids"] == again.encode(text) == ids
        assert theirs.decode(ids, skip_special_tokens=True) == text


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.text(max_size=12), min_size=1, max_size=4), order=st.randoms(use_true_random=False))
def test_any_text_of_characters_that_were_seen_comes_back(texts, order):
    trained = Tokenizer.train([*texts, "a"], 300, order.choice(["subwords", "characters"]))
    seen = [*"".join(texts), "a", " "]
    for text in (*texts, "".join(order.choices(seen, k=20)), " " + texts[0], texts[-1] + "  "):
        assert trained.decode(trained.encode(text)) == text


@pytest.mark.parametrize("unit", ["subwords", "characters"])
def test_what_was_never_seen_is_unknown_and_nothing_else_is_lost(unit):
    trained = Tokenizer.train(["a dog runs"], 40, unit)
    for unseen in ("ß", "e\u0301", "\u200c", "\n", "\u00a0"):
        ids = trained.encode(f"a dog{unseen} runs")
        assert trained.unk_id in ids and trained.decode(ids).replace("e", "") == "a dog runs"


def test_a_tokenizer_of_before_reads_as_before(tmp_path):
    """Runs of earlier releases keep a tokenizer.json that brings texts to NFC and single spaces."""
    import tokenizers
    from tokenizers import decoders, normalizers, pre_tokenizers, processors

    marks = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    old = tokenizers.Tokenizer(tokenizers.models.Unigram([*marks, ("▁é", -1.0), ("▁b", -1.0), ("▁", -2.0)], unk_id=2))
    blank = normalizers.Replace(tokenizers.Regex(r"[\s▁]+"), " ")
    old.normalizer = normalizers.Sequence([normalizers.NFC(), blank, normalizers.Strip()])
    old.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    old.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    old.add_special_tokens([tokenizers.AddedToken(name, normalized=False, special=True) for name, _ in marks])
    old.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    old.save(str(tmp_path / "tokenizer.json"))
    read = Tokenizer.load(tmp_path)
    assert read.encode(" e\u0301\n  b ") == [3, 4, 1] and read.decode([3, 4, 1]) == "é b"
    assert read.encode("e\u0301 b", 2) == [3, 1] and not read.notes


CODE = """#include <stdio.h>

int main(void) {
    for (int i = 0; i < 9; i++) {
\t\tprintf("%d\\n", i);  /* tabs, then spaces */
    }
    return ~0 & {0}[0];
}
"""
LAYOUT = [CODE, "- one\n- two\n\t- three", "a\tb\nc\td", "plain words on one line"]


@pytest.fixture(scope="module")
def of_layout():
    """A tokenizer of texts with line ends inside, in which layout counts."""
    return Tokenizer.train(LAYOUT * 5, 150)


@given(text=st.text(st.sampled_from(sorted(set().union(*LAYOUT))), max_size=60))
@example(text=CODE)
@example(text="\n\n  {\n\t}")
def test_nothing_of_a_layout_is_lost(of_layout, text):
    assert of_layout.decode(of_layout.encode(text)) == text


def test_line_ends_and_tabs_are_single_tokens(of_layout, tmp_path):
    line, tab = (of_layout.encode(mark)[-2] for mark in "\n\t")
    assert of_layout.encode("a\n\n\tb")[-5:-2] == [line, line, tab] and of_layout.unk_id not in of_layout.encode(CODE)
    of_layout.save(tmp_path)
    assert Tokenizer.load(tmp_path).encode(CODE) == of_layout.encode(CODE)
    import transformers

    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    assert theirs(CODE)["input_ids"] == of_layout.encode(CODE)
    assert theirs.decode(of_layout.encode(CODE), skip_special_tokens=True) == CODE


@given(ids=st.lists(st.integers(-200, 10_000), max_size=30))
def test_decode_takes_any_ids(tokenizer, ids):
    text = tokenizer.decode(ids)
    assert "<pad>" not in text and "</s>" not in text
    assert tokenizer.decode(np.array(ids, dtype=np.int64)) == text


def test_decode_stops_at_the_end_of_text(tokenizer):
    one, two = tokenizer.encode("one"), tokenizer.encode("two")
    assert tokenizer.decode(one + two) == "one"
    assert tokenizer.decode([0, -100, *one, -100]) == "one"
    assert tokenizer.decode_batch([one, two]) == ["one", "two"]


@given(text=st.text(max_size=40), limit=st.integers(1, 12))
def test_a_text_ends_with_eos_even_when_cut(tokenizer, text, limit):
    whole, cut = tokenizer.encode(text), tokenizer.encode(text, limit)
    assert whole[-1] == cut[-1] == tokenizer.eos_id
    assert len(cut) == min(len(whole), limit) and cut[:-1] == whole[: len(cut) - 1]


def test_layout_of_t5(tokenizer):
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id) == (0, 1, 2)
    assert tokenizer.encode("") == [1] and tokenizer.encode_batch([]) == []
    assert tokenizer.unk_id not in {i for text in TEXTS for i in tokenizer.encode(text)}
    assert tokenizer.unk_id in tokenizer.encode("Ω") and tokenizer.decode(tokenizer.encode("Ω")) == ""


def test_digits_stay_single(tokenizer):
    trained = Tokenizer.train(["1987-03-03 is 1987"] * 50, 100)
    assert len(trained.encode("1987")) == 1 + 4 + 1


def test_small_corpora(tokenizer):
    digits = Tokenizer.train([" ".join(WORDS)] * 30, 8000)
    assert digits.size < 60 and digits.decode(digits.encode("four zero")) == "four zero"
    tiny = Tokenizer.train(["a"], 16)
    assert tiny.decode(tiny.encode("a a")) == "a a"
    many = Tokenizer.train(["日本語の文章です漢字かな交じり文" + "0123456789"], 16)  # more characters than asked for
    assert many.unk_id not in many.encode("日本語の文章 7")
    odd = Tokenizer.train(["a ▅▅ b \0 \u200b c", "d"], 16)  # SentencePiece reserves two of these
    assert odd.decode(odd.encode("d ▅\0 \u200b")) == "d ▅\0 \u200b"
    letters = Tokenizer.train(TEXTS, 200, unit="characters")
    assert len(letters.encode("dog runs")) == len("▁dog▁runs") + 1


def test_the_same_texts_give_the_same_bytes(tokenizer, tmp_path):
    """In this process and in another with other hash seeds."""
    tokenizer.save(tmp_path)
    code = (
        "import hashlib, sys; from sourcewise.data.tokenizers.tokenizer import Tokenizer\n"
        "Tokenizer.train(eval(sys.stdin.buffer.read().decode()), 200).save(sys.argv[1])\n"
        "print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parents[3])}
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "other.json")],
        input=repr(TEXTS).encode(),
        capture_output=True,
        env=environment,
        check=True,
    )
    saved = (tmp_path / "tokenizer.json").read_bytes()
    assert hashlib.sha256(saved).hexdigest() == run.stdout.decode().strip()
    Tokenizer.load(tmp_path).save(tmp_path / "again")
    assert (tmp_path / "again/tokenizer.json").read_bytes() == saved


@pytest.mark.parametrize("with_model", [False, True])
def test_transformers_opens_it_with_the_same_ids(tokenizer, tmp_path, with_model):
    transformers = pytest.importorskip("transformers")
    if with_model:  # a T5 config beside it changes how AutoTokenizer chooses a class
        transformers.T5Config(vocab_size=tokenizer.size).save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(TEXTS)["input_ids"] == tokenizer.encode_batch(TEXTS)
    assert (theirs.pad_token_id, theirs.eos_token_id, theirs.unk_token_id, len(theirs)) == (0, 1, 2, tokenizer.size)
    for ids in tokenizer.encode_batch(TEXTS):
        assert theirs.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids)
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        assert Tokenizer.load(path).encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)


def test_a_byte_level_tokenizer_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    transformers.ByT5Tokenizer().save_pretrained(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.encode("ab") == [100, 101, 1] and tokenizer.decode(tokenizer.encode("Straße 😀")) == "Straße 😀"
    tokenizer.save(tmp_path / "again")
    assert Tokenizer.load(tmp_path / "again").encode("é") == tokenizer.encode("é")


# ── words ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def of_words():
    return Tokenizer.train(TEXTS, 500, "words")


@pytest.mark.parametrize("text", TEXTS)
def test_nothing_of_known_words_is_lost(of_words, text):
    assert of_words.decode(of_words.encode(text)) == text


@given(words=st.lists(st.sampled_from([*WORDS, "dog", "Hunde", "Straße"]), min_size=1))
def test_words_may_come_in_any_order(of_words, words):
    assert of_words.decode(of_words.encode(" ".join(words))) == " ".join(words)
    assert len(of_words.encode(" ".join(words))) == len(words) + 1


def test_punctuation_and_digits_are_words_of_their_own(of_words):
    assert of_words.pieces(of_words.encode("A dog runs, 1987!")) == [
        *("A", " dog", " runs", ",", " 1", "9", "8", "7", "!"),
        "</s>",
    ]


def test_an_unknown_word_is_marked_and_decodes_to_nothing(of_words):
    ids = of_words.encode("A cat runs.")
    assert ids[1] == of_words.unk_id and of_words.decode(ids) == "A runs."


def test_the_most_frequent_words_are_kept():
    texts = ["a a a b b b c c d"] * 2 + ["e"] * 50 + [f"w{'x' * n}" for n in range(99)]
    capped = Tokenizer.train(texts, 3 + 4, "words")  # pad, end, unknown, and four words
    assert capped.size == 7
    assert [capped.decode([i]) for i in range(3, 7)] == ["e", "a", "b", "c"]


def test_layout_counts_in_words_too():
    coded = Tokenizer.train([CODE], 200, "words")
    assert coded.decode(coded.encode(CODE)) == CODE


@pytest.mark.parametrize("unit", ["words", "characters"])
@pytest.mark.parametrize("with_model", [False, True])
def test_transformers_opens_words_and_characters_with_the_same_ids(tmp_path, unit, with_model):
    transformers = pytest.importorskip("transformers")
    trained = Tokenizer.train(TEXTS, 300, unit, ["<extra_id_0>"])
    if with_model:
        transformers.T5Config(vocab_size=trained.size).save_pretrained(tmp_path)
    trained.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = [*TEXTS, "A cat <extra_id_0> runs"]
    assert theirs(texts)["input_ids"] == trained.encode_batch(texts) == Tokenizer.load(tmp_path).encode_batch(texts)
    for ids in trained.encode_batch(texts):
        assert theirs.decode(ids, skip_special_tokens=True) == trained.decode(ids)


def test_special_entries_are_the_last_and_come_from_no_other_text(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    assert tokenizer.sentinels == []
    names = ["[NLU]", *(f"<extra_id_{i}>" for i in reversed(range(100)))]
    longer = Tokenizer.train(TEXTS, 200, special=names)
    assert longer.size == tokenizer.size + 101
    assert longer.sentinels == list(range(longer.size - 1, longer.size - 101, -1))  # the first is the highest, as T5's
    assert longer.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    spelt = longer.encode("[NLU] two <extra_id_0> dogs")
    assert spelt[0] == tokenizer.size and longer.sentinels[0] in spelt
    assert longer.decode(spelt) == "two dogs"
    longer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs("[NLU] two <extra_id_0> dogs")["input_ids"] == spelt and len(theirs) == longer.size
    assert theirs.decode(spelt, skip_special_tokens=True) == "two dogs"
    assert Tokenizer.load(tmp_path).sentinels == longer.sentinels


def test_sentinels_of_transformers_own_tokenizers(tmp_path):
    transformers = pytest.importorskip("transformers")
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁a", -1.0), ("▁", -2.0)]
    transformers.T5Tokenizer(vocab=pieces, extra_ids=7).save_pretrained(tmp_path / "t5")
    transformers.ByT5Tokenizer().save_pretrained(tmp_path / "byt5")
    for name, count in {"t5": 7, "byt5": 125}.items():
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / name)
        wanted = theirs.convert_tokens_to_ids([f"<extra_id_{i}>" for i in range(count)])
        assert Tokenizer.load(tmp_path / name).sentinels == wanted and len(set(wanted)) == count


def test_pieces_joined_are_the_text(tokenizer):
    for text in TEXTS:
        pieces = tokenizer.pieces(tokenizer.encode(text))
        assert pieces[-1] == "</s>"
        assert "".join(pieces[:-1]).removeprefix(" ") == text  # the space that a text begins after
    assert tokenizer.pieces([tokenizer.pad_id, tokenizer.size + 5, tokenizer.eos_id]) == [
        "<pad>",
        f"<{tokenizer.size + 5}>",
        "</s>",
    ]


def test_a_piece_is_read_after_those_before_it(tmp_path):
    transformers = pytest.importorskip("transformers")
    transformers.ByT5Tokenizer().save_pretrained(tmp_path)
    byte = Tokenizer.load(tmp_path)
    ids = byte.encode("a我b")
    assert len(ids) == 6 and [byte.pieces(ids)[i] for i in (0, 3, 4, 5)] == ["a", "我", "b", "</s>"]
    assert byte.piece(ids[:3], ids[3]) == "我" and byte.piece([], ids[4]) == "b"
    sentinel = byte._backend._tokenizer.convert_tokens_to_ids("<extra_id_3>")  # type: ignore[attr-defined]
    assert byte.piece(ids[:1], sentinel) == "<extra_id_3>"
