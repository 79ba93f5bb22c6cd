"""Folders of transformers with random weights and a tokenizer of ours, and what `generate` says of them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
import transformers

from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.generation.generate import generate
from sourcewise.generation.model import Model, load

WORDS = ["ran", "mol", "tiv", "sak", "pel", "dor", "nim", "fus", "gab", "hyl"]
DRAW = random.Random(4)
SOURCES = [" ".join(DRAW.choices(WORDS, k=DRAW.randint(1, 4))) for _ in range(5)]
TOKENIZER = Tokenizer.train(
    [" ".join(random.Random(i).choices(WORDS, k=6)) for i in range(100)], 48
)  # 0, 1, 2: pad, eos
SIZE = -(-TOKENIZER.size // 8) * 8
SHAPE: dict[str, Any] = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
SHAPE |= {"d_model": 32, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 64}
IDS = {"pad_token_id": 0, "eos_token_id": 1}


def t5() -> Any:
    shape = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4}
    config = transformers.T5Config(vocab_size=SIZE, **shape, **IDS, decoder_start_token_id=0)
    return transformers.T5ForConditionalGeneration(config)


def bart() -> Any:
    ids = {**IDS, "bos_token_id": 1, "decoder_start_token_id": 1, "forced_eos_token_id": 1}
    return transformers.BartForConditionalGeneration(transformers.BartConfig(vocab_size=SIZE, **SHAPE, **ids))


def marian() -> Any:
    ids = {**IDS, "decoder_start_token_id": 0, "forced_eos_token_id": 1}
    model = transformers.MarianMTModel(transformers.MarianConfig(vocab_size=SIZE, **SHAPE, **ids))
    model.generation_config.bad_words_ids = [[0]]
    return model


def bert2bert() -> Any:
    shape: dict[str, Any] = {"vocab_size": SIZE, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    shape |= {"intermediate_size": 48, "max_position_embeddings": 64}
    parts = (transformers.BertConfig(**shape), transformers.BertConfig(**shape))
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(*parts)
    model = transformers.EncoderDecoderModel(config)
    for key, value in {**IDS, "decoder_start_token_id": 2}.items():
        setattr(model.config, key, value)
        setattr(model.generation_config, key, value)
    return model


KINDS = {"t5": t5, "bart": bart, "marian": marian, "bert2bert": bert2bert}


def write_folder(kind: str, folder: Path) -> Any:
    """A model of this kind, in the folder too; its weights are large enough that outputs differ."""
    torch.manual_seed(3)
    model = KINDS[kind]().eval()
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and not (kind == "marian" and "positions" in name):  # these are sinusoids
            torch.nn.init.normal_(weight, 0, 0.25)
    model.save_pretrained(folder)
    TOKENIZER.save(folder)
    return model


def change(folder: Path, file: str = "generation_config.json", **settings: Any) -> None:
    """Set keys of a JSON file in the folder; those set to ... are taken out."""
    tree = json.loads((folder / file).read_text()) | settings
    (folder / file).write_text(json.dumps({key: value for key, value in tree.items() if value is not ...}))


@torch.inference_mode()
def expected(model: Any, folder: Path, sources: list[str] = SOURCES, **asked: Any) -> list[list[int]]:
    """The ids that transformers' `generate` gives with the folder's settings, source by source, without the start."""
    model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    rows = [model.generate(torch.tensor([TOKENIZER.encode(text)]), **asked)[0].tolist()[1:] for text in sources]
    return [_without_padding(row, model.generation_config.pad_token_id) for row in rows]


def _without_padding(row: list[int], pad: int) -> list[int]:
    while row and row[-1] == pad:
        row = row[:-1]
    return row


@torch.inference_mode()
def found(model: Model | Path, sources: list[str] = SOURCES, **asked: Any) -> list[list[int]]:
    """The ids that ours gives, with the end."""
    opened = model if isinstance(model, Model) else load(model)
    encoded = opened._encoded(sources)
    hypotheses = generate(opened.network, encoded, opened.options(**asked), engine=opened.engine)
    return [_without_padding(hypothesis.said, opened.network.pad_id) for hypothesis in hypotheses]
