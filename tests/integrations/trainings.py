"""Small trainings of Hugging Face's Trainer for the tests: copy a word of letters, or spell it otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    PreTrainedTokenizerFast,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
)

SIZE, LETTERS, EOS, PAD = 16, range(4, 16), 1, 0
Row = dict[str, list[int]]


def rows(count: int, seed: int = 0) -> list[Row]:
    """Words of 2 to 4 letters, each to be said as the letters two further on."""
    draw = torch.Generator().manual_seed(seed)
    out = []
    for _ in range(count):
        length = int(torch.randint(2, 5, (1,), generator=draw))
        word = torch.randint(LETTERS[0], LETTERS[-1] + 1, (length,), generator=draw).tolist()
        said = [(letter - 4 + 2) % len(LETTERS) + 4 for letter in word]
        out.append({"input_ids": [*word, EOS], "labels": [*said, EOS]})
    return out


def shuffled() -> list[Row]:
    """Pairs that do not belong together."""
    found = rows(600)
    labels = [row["labels"] for row in found]
    return [row | {"labels": labels[(7 * i + 3) % len(found)]} for i, row in enumerate(found)]


def collate(chosen: list[Row]) -> dict[str, Tensor]:
    """A padded batch as DataCollatorForSeq2Seq makes it."""
    out = {}
    for name, filled in (("input_ids", PAD), ("labels", -100)):
        width = max(len(row[name]) for row in chosen)
        out[name] = torch.tensor([row[name] + [filled] * (width - len(row[name])) for row in chosen])
    out["attention_mask"] = (out["input_ids"] != PAD).long()
    return out


def tokenizer() -> PreTrainedTokenizerFast:
    """Letters as text."""
    words = {"<pad>": PAD, "</s>": EOS, "<unk>": 2, "<s>": 3} | {chr(93 + letter): letter for letter in LETTERS}
    made = Tokenizer(WordLevel(words, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def t5() -> T5ForConditionalGeneration:
    """A T5 of 60,000 weights."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocab_size": SIZE, "d_model": 48, "d_kv": 12, "d_ff": 96, "num_layers": 1, "num_heads": 4}
    return T5ForConditionalGeneration(T5Config(**shape, decoder_start_token_id=PAD, dropout_rate=0.0))


def bart() -> BartForConditionalGeneration:
    """A BART of the same size."""
    torch.manual_seed(0)
    stack = {"layers": 1, "attention_heads": 4, "ffn_dim": 96}
    shape = {f"{name}_{key}": value for name in ("encoder", "decoder") for key, value in stack.items()}
    ids = {"bos_token_id": PAD, "pad_token_id": PAD, "eos_token_id": EOS, "decoder_start_token_id": EOS}
    config = BartConfig(
        vocab_size=SIZE, d_model=48, max_position_embeddings=32, dropout=0.0, init_std=0.1, **ids, **shape
    )
    return BartForConditionalGeneration(config)


def trainer(
    folder: Path,
    model: Any = None,
    steps: int = 60,
    train: list[Row] | None = None,
    valid: list[Row] | None = None,
    collator: Callable[[list[Row]], dict[str, Tensor]] = collate,
    processing: Any = None,
    **options: Any,
) -> Seq2SeqTrainer:
    """A trainer of so many steps on words, with an evaluation at the end."""
    defaults = {
        "learning_rate": 4e-3,
        "per_device_train_batch_size": 32,
        "per_device_eval_batch_size": 32,
        "logging_steps": 5,
        "eval_strategy": "steps",
        "eval_steps": steps,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 0,
        "remove_unused_columns": False,
    }
    arguments = Seq2SeqTrainingArguments(output_dir=str(folder), max_steps=steps, **(defaults | options))
    return Seq2SeqTrainer(
        model=model or t5(),
        args=arguments,
        train_dataset=train or rows(600),
        eval_dataset=valid or rows(64, seed=1),
        data_collator=collator,
        processing_class=processing,
    )
