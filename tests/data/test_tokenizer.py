from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sourcewise.data.tokenizer import Tokenizer
from sourcewise.data.tokenizer_training import tidy

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEXTS = [
    *("A dog runs.", "Zwei Hunde laufen über die Straße, 1987!", "Ça va? (oui) “non”", "日本語の文", "e\u0301tude"),
    *(" ".join(WORDS[i % 10] for i in range(k, k + 5)) for k in range(40)),
]
ALPHABET = sorted({c for text in TEXTS for c in tidy(text)})


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS, 200)


@given(text=st.text(st.sampled_from([*ALPHABET, "\t", "\n", "\u00a0", "▁"]), max_size=60))
@example(text="")
@example(text="  a\t\tdog ")
def test_decode_undoes_encode(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == tidy(text)


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
    letters = Tokenizer.train(TEXTS, 200, kind="char")
    assert len(letters.encode("dog runs")) == len("▁dog▁runs") + 1


def test_the_same_texts_give_the_same_bytes(tokenizer, tmp_path):
    """In this process and in another with other hash seeds."""
    tokenizer.save(tmp_path)
    code = (
        "import hashlib, sys; from sourcewise.data.tokenizer import Tokenizer\n"
        "Tokenizer.train(eval(sys.stdin.buffer.read().decode()), 200).save(sys.argv[1])\n"
        "print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parents[2])}
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
