"""Random models with a tokenizer of their class, and 200 sources of each: what transformers' `generate` is held to."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from sourcewise.generation.model import Model, load
from tests.data.tokenizers import tokenizer_classes
from tests.data.tokenizers.tokenizer_classes import LANGUAGES, OTHERS

LAYERS: dict[str, Any] = {
    "d_model": 32,
    **{f"{stack}_{name}": n for stack in ("encoder", "decoder") for name, n in (("layers", 1), ("ffn_dim", 48))},
    **{f"{stack}_attention_heads": 4 for stack in ("encoder", "decoder")},
    "max_position_embeddings": 64,
}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4}
# Name → class, its tokenizer, its shape, and the token that a target starts with
KINDS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "t5": ("T5", "t5", T5, "<pad>"),  # SentencePiece, Unigram
    "bart": ("Bart", "bart", LAYERS, "</s>"),  # bytes
    "marian": ("Marian", "marian", LAYERS, "<pad>"),  # two SentencePiece models
    "mbart": ("MBart", "mbart50", LAYERS, "</s>"),
    "pegasus-x": ("PegasusX", "pegasus", {**LAYERS, "block_size": 8, "num_global_tokens": 2}, "<pad>"),
    "m2m100": ("M2M100", "m2m100", LAYERS, "</s>"),  # SentencePiece's BPE beside a list of entries
    "nllb": ("M2M100", "nllb", LAYERS, "</s>"),  # BPE with ▁ in a tokenizer.json
}
WORDS = ["the", "cat", "sat", "on", "mat", "a", "dog", "runs", "and", "two", "dogs", "run", "1", "2", "3", "abcdef"]


@dataclass
class Pair:
    """A model of transformers, its tokenizer, ours, and 200 sources."""

    theirs: Any
    tokenizer: Any
    ours: Model
    groups: list[list[str]]  # of as many tokens each, so that nothing is padded

    @torch.inference_mode()
    def generate(self, sources: list[str], **asked: Any) -> Any:
        """What transformers' `generate` gives for sources of one group."""
        ids = torch.tensor([self.ours.tokenizer.encode(source) for source in sources])
        return self.theirs.generate(ids, **asked)

    @property
    def neutral(self) -> set[int]:
        """Ids that may stand behind an output."""
        return {self.ours.network.pad_id, *self.ours.network.defaults.ends}


def with_letters(name: str, folder: Path) -> Any:
    """A tokenizer of a class of transformers that can write "abcdef", as its matching of `stop_strings` needs."""
    with pytest.MonkeyPatch.context() as patch:
        for side in ("ENGLISH", "GERMAN"):
            patch.setattr(tokenizer_classes, side, [*getattr(tokenizer_classes, side), "abcdef", "bad faced cab"])
        {**LANGUAGES, **OTHERS}[name](folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


def pair(kind: str, folder: Path) -> Pair:
    """A random model, whose outputs hold no special tokens but the end."""
    family, tokenizer, shape, start = KINDS[kind]
    theirs = with_letters(tokenizer, folder)
    codes = [*getattr(theirs, "lang_token_to_id", {}).values()]
    ids = {"pad_token_id": theirs.pad_token_id, "eos_token_id": theirs.eos_token_id}
    ids["decoder_start_token_id"] = theirs.convert_tokens_to_ids(start)
    size = max(*theirs.get_vocab().values(), *codes, theirs.eos_token_id) + 1
    torch.manual_seed(2)
    config = getattr(transformers, f"{family}Config")(vocab_size=size, **shape, **ids)
    name = "MarianMTModel" if family == "Marian" else f"{family}ForConditionalGeneration"
    model = getattr(transformers, name)(config).eval()
    for parameter, weight in model.named_parameters():
        if weight.dim() > 1 and not (family == "Marian" and "positions" in parameter):  # these are sinusoids
            torch.nn.init.normal_(weight, 0, 0.25)
    model.save_pretrained(folder)
    theirs.save_pretrained(folder)
    special = {*theirs.all_special_ids, *theirs.added_tokens_decoder, *codes} - {theirs.eos_token_id}
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"suppress_tokens": sorted(special)}))
    model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    opened, draw, alike = load(folder), random.Random(7), dict[int, list[str]]()
    for _ in range(200):
        source = " ".join(draw.choices(WORDS, k=draw.randint(1, 6)))
        alike.setdefault(len(opened.tokenizer.encode(source)), []).append(source)
    return Pair(model, theirs, opened, list(alike.values()))
