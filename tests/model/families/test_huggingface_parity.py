"""Our Transformer against Hugging Face's own classes: logits, greedy and beam search, round trips, CTranslate2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sourcewise.config import GenerationConfig
from sourcewise.data.batches import Source, length_mask
from sourcewise.generation.sampling import Hypothesis
from sourcewise.model.families.t5 import to_huggingface
from sourcewise.model.network import Seq2Seq
from sourcewise.model.weights.checkpoint import load_network, save_network
from sourcewise.model.weights.huggingface_folders import load_huggingface_network
from tests.generation.searching import beam_search, greedy_or_sample

transformers = pytest.importorskip("transformers")
SOURCES, LONGEST, VOCABULARY = 200, 30, 120
SHAPE = {"vocab_size": VOCABULARY, "d_model": 48, "d_kv": 12, "d_ff": 96, "num_layers": 2, "num_heads": 4}
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
FAMILIES: dict[str, dict[str, Any]] = {  # name → what its configuration has beside SHAPE
    "t5 relu tied": {},
    "t5 gated untied": GATED,
    "t5 gated, separate head, unscaled": GATED,
    "mt5": GATED,
    "narrow heads": {"d_kv": 5, "num_heads": 3, "num_decoder_layers": 1},
    "ul2": {**GATED, "feed_forward_proj": "gated-silu", "d_kv": 16, "num_heads": 3, "dropout_rate": 0.0},
    "byt5": {**GATED, "num_layers": 3, "num_decoder_layers": 1},
    "t5 gelu": {"feed_forward_proj": "gelu"},
    "t5 gated swish": {**GATED, "feed_forward_proj": "gated-swish"},
}


def hugging_face_model(family: str) -> Any:
    """A random model of a family; the heads are sharpened so that searches end at various lengths."""
    torch.manual_seed(sum(map(ord, family)))
    shape = SHAPE | FAMILIES[family] | {"decoder_start_token_id": 0}
    if family == "mt5":
        model = transformers.MT5ForConditionalGeneration(transformers.MT5Config(**shape))
    else:
        model = transformers.T5ForConditionalGeneration(transformers.T5Config(**shape))
    if "tie_word_embeddings" in FAMILIES[family]:
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) * 0.3)
    for name, weight in model.named_parameters():
        if "relative_attention_bias" in name or "layer_norm" in name:
            torch.nn.init.normal_(weight, 1.0 if "norm" in name else 0.0, 0.3)
    return model.eval()


@pytest.fixture(params=FAMILIES)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Seq2Seq, Path]:
    """Hugging Face's model, ours from its folder, and the folder."""
    theirs = hugging_face_model(request.param)
    theirs.save_pretrained(tmp_path / "hf")
    ours = load_network(tmp_path / "hf")
    assert isinstance(ours, Seq2Seq)
    return theirs, ours, tmp_path / "hf"


def random_sources(*, padded: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (SOURCES, LONGEST) and their lengths."""
    draw = torch.Generator().manual_seed(3)
    lengths = torch.full((SOURCES,), LONGEST)
    if padded:
        lengths = torch.randint(1, LONGEST + 1, (SOURCES,), generator=draw)
        lengths[0] = LONGEST
    tokens = torch.randint(2, VOCABULARY, (SOURCES, LONGEST), generator=draw)
    return tokens.masked_fill(~length_mask(lengths, LONGEST), 0), lengths


def sequences(found: list[Hypothesis]) -> list[list[int]]:
    """Ids with the end of text where it was reached."""
    return [h.ids + [1] * h.finished for h in found]


def until_end(row: list[int]) -> list[int]:
    """A row of `generate` without its start and what follows the end of text."""
    row = row[1:]
    return row[: row.index(1) + 1] if 1 in row else row


@pytest.mark.parametrize("padded", [False, True])
@torch.inference_mode()
def test_logits_and_searches_are_those_of_transformers(pair: tuple[Any, Seq2Seq, Path], padded: bool) -> None:
    theirs, ours, _ = pair
    tokens, lengths = random_sources(padded=padded)
    mask = length_mask(lengths, LONGEST).long()
    targets = torch.randint(2, VOCABULARY, (SOURCES, 17), generator=torch.Generator().manual_seed(4))
    memory = ours.encode(Source(tokens, lengths))
    expected = theirs(input_ids=tokens, attention_mask=mask, decoder_input_ids=targets).logits
    torch.testing.assert_close(ours.decode(targets, memory), expected, atol=1e-4, rtol=0)
    for beams in (1, 4):
        rows = theirs.generate(
            input_ids=tokens,
            attention_mask=mask,
            num_beams=beams,
            do_sample=False,
            max_new_tokens=18,
            length_penalty=1.0,
        )
        options = GenerationConfig(beams=beams, max_new_tokens=18)
        if beams == 1:
            found = greedy_or_sample(ours, memory, options, list(range(SOURCES)))
        else:
            found = [best[0] for best in beam_search(ours, memory, options)]
        assert sequences(found) == [until_end(row) for row in rows.tolist()]


@pytest.mark.parametrize(
    "options",
    [
        {"length_penalty": 0.4},
        {"length_penalty": 2.0},
        {"no_repeat_ngram": 2},
        {"min_new_tokens": 9},
        {"no_repeat_ngram": 3, "min_new_tokens": 4, "beams": 2},
    ],
)
@torch.inference_mode()
def test_search_options_are_those_of_transformers(options: dict[str, Any], tmp_path: Path) -> None:
    theirs = hugging_face_model("t5 gated untied")
    theirs.save_pretrained(tmp_path)
    ours = load_network(tmp_path)
    tokens, lengths = random_sources(padded=True)
    names = {"no_repeat_ngram": "no_repeat_ngram_size", "beams": "num_beams"}
    given = {names.get(k, k): v for k, v in {"beams": 4, **options}.items()}
    rows = theirs.generate(
        input_ids=tokens,
        attention_mask=length_mask(lengths, LONGEST).long(),
        do_sample=False,
        max_new_tokens=15,
        **given,
    )
    config = GenerationConfig(max_new_tokens=15, **{"beams": 4, **options})
    found = [best[0] for best in beam_search(ours, ours.encode(Source(tokens, lengths)), config)]
    assert sequences(found) == [until_end(row) for row in rows.tolist()]


@torch.inference_mode()
def test_a_folder_of_ours_opens_in_transformers_with_the_same_weights(pair: tuple[Any, Seq2Seq, Path]) -> None:
    theirs, ours, folder = pair
    save_network(ours, folder.parent / "ours")
    back = transformers.T5ForConditionalGeneration.from_pretrained(folder.parent / "ours").eval()
    tokens, lengths = random_sources(padded=True)
    given = {"input_ids": tokens, "attention_mask": length_mask(lengths, LONGEST).long(), "decoder_input_ids": tokens}
    torch.testing.assert_close(back(**given).logits, theirs(**given).logits, atol=1e-5, rtol=0)
    back.save_pretrained(folder.parent / "theirs")
    first = to_huggingface(ours.body)
    for again in (load_network(folder.parent / each) for each in ("ours", "theirs")):
        assert isinstance(again, Seq2Seq)
        second = to_huggingface(again.body)
        assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@torch.inference_mode()
def test_the_adapter_gives_what_our_own_network_gives(pair: tuple[Any, Seq2Seq, Path]) -> None:
    _, ours, folder = pair
    adapted = load_huggingface_network(folder)
    tokens, lengths = random_sources(padded=True)
    source = Source(tokens[:40], lengths[:40])
    mine, theirs = ours.encode(source), adapted.encode(source)
    torch.testing.assert_close(adapted.decode(tokens[:40], theirs), ours.decode(tokens[:40], mine), atol=1e-4, rtol=0)
    for beams in (1, 3):
        options = GenerationConfig(beams=beams, max_new_tokens=12)
        search = (lambda n, m, o: greedy_or_sample(n, m, o, list(range(40)))) if beams == 1 else None
        if search is not None:
            assert sequences(search(adapted, theirs, options)) == sequences(search(ours, mine, options))
        else:
            first, second = beam_search(adapted, theirs, options), beam_search(ours, mine, options)
            assert [sequences(b) for b in first] == [sequences(b) for b in second]


@torch.inference_mode()
def test_cross_attention_is_that_of_transformers_and_of_the_adapter(pair: tuple[Any, Seq2Seq, Path]) -> None:
    theirs, ours, folder = pair
    tokens, lengths = random_sources(padded=True)
    source = Source(tokens[:9], lengths[:9])
    targets = torch.randint(2, VOCABULARY, (9, 7), generator=torch.Generator().manual_seed(4))
    theirs.set_attn_implementation("eager")
    expected = theirs(
        input_ids=source.tokens,
        attention_mask=length_mask(lengths[:9], LONGEST).long(),
        decoder_input_ids=targets,
        output_attentions=True,
    ).cross_attentions
    found = ours.cross_attention(targets, ours.encode(source))
    assert found is not None
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=0)
    stranger = load_huggingface_network(folder)
    adapted = stranger.cross_attention(targets, stranger.encode(source))
    assert adapted is not None
    torch.testing.assert_close(found, adapted, atol=1e-5, rtol=0)
