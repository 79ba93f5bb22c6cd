"""Types of the zoo with other settings than there: untied, uneven, resized, in shards of fp16, of two widths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sourcewise.config import GenerationConfig
from sourcewise.data.batches import Batch
from sourcewise.generation.rules import ReadSource
from sourcewise.generation.settings import read_settings
from sourcewise.model.protocol import shift_right
from sourcewise.model.weights.checkpoint import generation_told, load_network, save_network
from tests.generation.folders import change
from tests.generation.searching import beam_search, greedy_or_sample
from tests.model.families import zoo
from tests.model.families.test_every_type import SOURCES, STEPS, given, labels, sources
from tests.model.families.zoo import BART, BERT, IDS, LED, MOONSHINE, PROPHET, SIZE, T5, WHISPER

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")
APART = {"tie_word_embeddings": False}
# Their own loss does not begin with the start token, or shifts nothing.
OTHER_LOSS = ("FSMTForConditionalGeneration", "MBartForConditionalGeneration")


def resized(make: Callable[[], Any], rows: int) -> Any:
    """A model after `resize_token_embeddings`."""
    model = make()
    model.resize_token_embeddings(rows, mean_resizing=False)
    return model


def wider() -> Any:
    """A decoder that is wider than the encoder of `bert`."""
    return transformers.BertConfig(**{**BERT, "hidden_size": 48}, is_decoder=True, add_cross_attention=True)


def pair(decoder: Callable[[], Any], **settings: Any) -> Any:
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(zoo.bert(), decoder())
    for key, value in {**IDS, **settings}.items():
        setattr(config, key, value)
    return transformers.EncoderDecoderModel(config=config)


def of(name: str, shape: dict[str, Any], model: str = "", **other: Any) -> Callable[[], Any]:
    return zoo._of(name, model, **{**shape, **other})


UNEVEN = {"encoder_layers": 3, "decoder_layers": 1, "encoder_ffn_dim": 20, "decoder_ffn_dim": 60}
HEADS = {"encoder_attention_heads": 2, "decoder_attention_heads": 8}
BUCKETS = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 20}
GLOBAL = {"encoder_attention_type": "transient-global", "local_radius": 4, "global_block_size": 4}
HABITS: dict[str, Callable[[], Any]] = {
    "bart, scaled": of("Bart", BART, scale_embedding=True),
    "bart, untied": of("Bart", BART, **APART),
    "bart, uneven": of("Bart", BART, **UNEVEN, **HEADS),
    "bart, another activation": of("Bart", BART, activation_function="gelu_new"),
    "bart, resized": lambda: resized(of("Bart", BART), SIZE + 7),
    "t5, untied": of("T5", T5, **APART),
    "t5 1.1": of("T5", T5, **APART, feed_forward_proj="gated-gelu"),
    "t5, uneven": of("T5", T5, num_layers=3, num_decoder_layers=1, d_kv=12, num_heads=3, **BUCKETS),
    "t5, resized": lambda: resized(of("T5", T5), SIZE + 7),
    "t5, gated silu": of("T5", T5, feed_forward_proj="gated-silu"),
    "marian, apart": of("Marian", BART, "MarianMTModel", **APART, share_encoder_decoder_embeddings=False),
    "marian, swish": of("Marian", BART, "MarianMTModel", scale_embedding=True, activation_function="swish"),
    "mbart, scaled": of("MBart", BART, scale_embedding=True),
    "mbart, untied": of("MBart", BART, **APART),
    "m2m_100, untied": of("M2M100", BART, **APART),
    "m2m_100, uneven": of("M2M100", BART, **UNEVEN, scale_embedding=False),
    "m2m_100, resized": lambda: resized(of("M2M100", BART), SIZE + 7),
    "pegasus, untied": of("Pegasus", BART, **APART, scale_embedding=True),
    "pegasus, resized": lambda: resized(of("Pegasus", BART), SIZE + 7),
    "umt5, untied": of("UMT5", T5, **APART, feed_forward_proj="gated-gelu"),
    "longt5, global": of("LongT5", T5, **GLOBAL),
    "led, a window a layer": of("LED", LED, attention_window=[4, 8]),
    "bigbird, sparse": of("BigBirdPegasus", BART, attention_type="block_sparse", block_size=4, num_random_blocks=1),
    "prophetnet, trigrams": of("ProphetNet", PROPHET, ngram=3),
    "fsmt, two vocabularies": of(
        "FSMT", BART, langs=["en", "de"], src_vocab_size=SIZE, tgt_vocab_size=SIZE + 9, **APART
    ),
    "a pair of two widths": lambda: pair(wider),
    "a pair of two widths, untied": lambda: pair(wider, **APART),
    "whisper, suppressed": of("Whisper", WHISPER, suppress_tokens=[5, 9], begin_suppress_tokens=[20, 1]),
    "moonshine, fewer keys": of("Moonshine", MOONSHINE, partial_rotary_factor=0.5, decoder_num_key_value_heads=2),
}
HALVED = [name for name in HABITS if "untied" in name or "apart" in name or "widths" in name]
CASES = [*((name, False) for name in HABITS), *((name, True) for name in HALVED)]


def saved(name: str, halved: bool, folder: Path) -> Any:
    """A random model in a folder, in fp32 or in several files of fp16; gives its class."""
    model = HABITS[name]()
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, 0, 0.25)
    model.tie_weights()
    (model.half() if halved else model).save_pretrained(folder, **({"max_shard_size": "20KB"} if halved else {}))
    change(folder, max_new_tokens=STEPS, max_length=...)
    assert (folder / "model.safetensors.index.json").is_file() == halved
    return type(model)


@pytest.mark.parametrize(("name", "halved"), CASES, ids=[f"{n}{', in fp16' if h else ''}" for n, h in CASES])
def test_loss_searches_and_folder_are_the_own_of_the_class(name: str, halved: bool, tmp_path: Path) -> None:
    made = saved(name, halved, tmp_path / "model")
    theirs, ours = (
        made.from_pretrained(tmp_path / "model", dtype=torch.float32).eval(),
        load_network(tmp_path / "model"),
    )
    source, targets = sources(ours), labels()  # type: ignore[arg-type]
    reads = given(theirs, ours, source)
    read = {"decoder_input_ids": shift_right(targets, ours.start_id, ours.pad_id)}
    with torch.no_grad():
        out = theirs(**reads, labels=targets, **(read if made.__name__ in OTHER_LOSS else {}))
        found = ours(Batch(source, targets, list(range(SOURCES))))
    assert float(found.nats) / found.tokens == pytest.approx(float(out.loss), abs=1e-5)
    told, rows = read_settings(generation_told(tmp_path / "model")), source.tokens
    tokens = None if rows is None else ReadSource(lambda i: rows[i, : source.token_lengths[i]].tolist())
    with torch.inference_mode():
        memory = ours.encode(source)
        for beams in (1, 4):
            options = GenerationConfig(**{**told.options, "beams": beams})
            if beams == 1:
                said = greedy_or_sample(ours, memory, options, list(range(SOURCES)), tokens)
            else:
                said = [best[0] for best in beam_search(ours, memory, options, tokens)]
            expected = transformers.GenerationMixin.generate(theirs, **reads, num_beams=beams)
            for hypothesis, row in zip(said, expected[:, 1:].tolist(), strict=True):
                end = next((i for i, token in enumerate(row) if token in ours.defaults.ends), STEPS)
                assert hypothesis.said == row[: end + 1]
    save_network(ours, tmp_path / "again")
    back = made.from_pretrained(tmp_path / "again").eval()
    with torch.no_grad():
        torch.testing.assert_close(back(**reads, **read).logits, theirs(**reads, **read).logits, atol=1e-5, rtol=1e-5)
