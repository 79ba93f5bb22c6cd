"""Other Hugging Face architectures through the adapter: what `generate` says, we say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sourcewise.config import GenerationConfig
from sourcewise.data.batches import Source, length_mask
from sourcewise.model.weights.checkpoint import load_network
from tests.generation.searching import beam_search, greedy_or_sample

transformers = pytest.importorskip("transformers")
SIZE, SOURCES, LONGEST, STEPS = 80, 20, 12, 10
LAYERS = {
    "vocab_size": SIZE,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 40,
}
T5_LAYERS = {"vocab_size": SIZE, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
SWITCHED = {"num_decoder_layers": 2, "num_experts": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1}
# Name → (architecture, its configuration, what its generation_config.json says)
MODELS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "bart": ("Bart", LAYERS, {}),  # must end at the last step
    "bart for summaries": ("Bart", LAYERS, {"forced_bos_token_id": 0}),
    "marian": (
        "Marian",
        {**LAYERS, "pad_token_id": 79, "eos_token_id": 0, "decoder_start_token_id": 79},
        {"bad_words_ids": [[79]]},
    ),
    "mbart": ("MBart", LAYERS, {"forced_bos_token_id": 7, "decoder_start_token_id": 2}),
    "m2m100": ("M2M100", LAYERS, {"forced_bos_token_id": 7}),
    "pegasus": ("Pegasus", LAYERS, {}),
    "umt5": ("UMT5", {**T5_LAYERS, "decoder_start_token_id": 0}, {}),
    "blenderbot": ("Blenderbot", LAYERS, {}),
    "pegasus-x": ("PegasusX", {**LAYERS, "block_size": 8, "num_global_tokens": 2}, {}),
    "nllb of experts": (
        "NllbMoe",
        {**LAYERS, "num_experts": 2, "encoder_sparse_step": 2, "decoder_sparse_step": 2},
        {"forced_bos_token_id": 7},
    ),
    "switch transformers": (
        "SwitchTransformers",
        {**T5_LAYERS, **SWITCHED, "decoder_start_token_id": 0},
        {},
    ),
}


def folder_of(name: str, folder: Path) -> Path:
    """A random model of an architecture, saved."""
    architecture, shape, generation = MODELS[name]
    kind = "MarianMTModel" if architecture == "Marian" else f"{architecture}ForConditionalGeneration"
    torch.manual_seed(0)
    model = getattr(transformers, kind)(getattr(transformers, f"{architecture}Config")(**shape))
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, 0, 0.25)
    for key, value in generation.items():
        setattr(model.generation_config, key, value)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_searches_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    ours: Any = load_network(folder_of(name, tmp_path))
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, LONGEST + 1, (SOURCES,), generator=draw)
    lengths[0] = LONGEST
    tokens = torch.randint(4, SIZE - 1, (SOURCES, LONGEST), generator=draw)
    tokens.masked_fill_(~length_mask(lengths, LONGEST), ours.pad_id)
    memory = ours.encode(Source(tokens, lengths))
    for beams in (1, 3):
        options = GenerationConfig(beams=beams, max_new_tokens=STEPS)
        if beams == 1:
            found = greedy_or_sample(ours, memory, options, list(range(SOURCES)))
        else:
            found = [best[0] for best in beam_search(ours, memory, options)]
        expected = theirs.generate(
            input_ids=tokens,
            attention_mask=length_mask(lengths, LONGEST).long(),
            num_beams=beams,
            do_sample=False,
            max_new_tokens=STEPS,
            max_length=None,
            length_penalty=1.0,
            early_stopping=False,
        )
        for hypothesis, row in zip(found, expected[:, 1:].tolist(), strict=True):
            until = row.index(ours.eos_id) if ours.eos_id in row else STEPS
            assert hypothesis.ids == row[:until]


def test_half_precision_weights_are_opened_in_full(tmp_path: Path) -> None:
    model = transformers.BartForConditionalGeneration(transformers.BartConfig(**LAYERS))
    model.half().save_pretrained(tmp_path)
    network: Any = load_network(tmp_path)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
