"""ByT5: bytes for a vocabulary, three encoder blocks to a decoder block; a folder without a vocabulary file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import sourcewise
from tests.training.recipes import recipe

transformers = pytest.importorskip("transformers")
TEXTS = ["two dogs", "Straße", "日本語", "a\tb\n{c}", "😀 x", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random ByT5 as on the hub: its tokenizer is a configuration alone."""
    made = tmp_path_factory.mktemp("byt5")
    shape = {"vocab_size": 384, "d_model": 24, "d_kv": 8, "d_ff": 32, "num_heads": 3, "feed_forward_proj": "gated-gelu"}
    config = transformers.T5Config(
        **shape, num_layers=3, num_decoder_layers=1, decoder_start_token_id=0, tie_word_embeddings=False
    )
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(config)
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) * 0.3)
    model.save_pretrained(made)
    transformers.ByT5Tokenizer().save_pretrained(made)
    assert not list(made.glob("*.model")) and not (made / "tokenizer.json").exists()
    return made


def test_texts_are_their_bytes(folder: Path) -> None:
    tokenizer = sourcewise.load(folder).tokenizer
    for text in TEXTS:
        assert tokenizer.encode(text) == [byte + 3 for byte in text.encode()] + [1]
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.size == 384 and len(tokenizer.sentinels) == 125


def test_it_says_what_transformers_says(folder: Path) -> None:
    model = sourcewise.load(folder)
    theirs: Any = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    for beams in (1, 4):
        said = theirs.generate(
            **tokenizer(TEXTS[:5], return_tensors="pt", padding=True), num_beams=beams, max_new_tokens=20
        )
        expected = [tokenizer.decode(row, skip_special_tokens=True) for row in said]
        assert model.generate(TEXTS[:5], beams=beams, max_new_tokens=20) == expected


def test_it_is_fine_tuned_and_stays_a_byt5(folder: Path, tmp_path: Path) -> None:
    run = sourcewise.train(recipe(tmp_path, model={"weights": str(folder)}, train__steps=4, train__evaluate_every=4))
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(run.last)
    assert isinstance(tokenizer, transformers.ByT5Tokenizer)
    assert tokenizer("日本語")["input_ids"] == sourcewise.load(run.folder).tokenizer.encode("日本語")
    theirs: Any = transformers.AutoModelForSeq2SeqLM.from_pretrained(run.last)
    assert (theirs.config.num_layers, theirs.config.num_decoder_layers) == (3, 1)
