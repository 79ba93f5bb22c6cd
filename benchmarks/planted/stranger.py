"""A training by Hugging Face's Seq2SeqTrainer, as its users write it, with our callback in it.

Nothing of ours trains here: the doctor sees what the callback is shown, and afterwards the saved folder with a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

import sourcewise
from planted.fault import Fault
from planted.material import Material, Row
from planted.subjects import Subject
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.diagnosis.finding import Finding
from sourcewise.integrations.transformers import SourcewiseCallback

VOCABULARY = 64


def examined(drawn: Material, fault: Fault, subject: Subject, seed: int, folder: Path) -> list[Finding]:
    """Train, save, diagnose: what the callback found, and what is found in the saved folder."""
    from transformers import AutoTokenizer

    how = fault.stranger
    texts = [text for row in drawn.train for text in (row.source, row.target)]
    Tokenizer.train(texts, VOCABULARY).save(folder / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    torch.manual_seed(seed)
    model = build(tokenizer, subject.options)
    if "model" in how:
        how["model"](model)
    found = fitted(model, tokenizer, drawn, how, subject, seed, folder)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    if "saved" in how:
        how["saved"](folder)
    return [*found, *sourcewise.diagnose(folder / "model", folder / "valid.tsv").findings]


def build(tokenizer: Any, options: Mapping[str, Any]) -> Any:
    """A small T5 from its configuration, its special ids those of the tokenizer."""
    from transformers import T5Config, T5ForConditionalGeneration

    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    shape = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_decoder_layers": 1, "num_heads": 4}
    start = {"decoder_start_token_id": tokenizer.pad_token_id, "dropout_rate": 0.0}
    return T5ForConditionalGeneration(T5Config(vocab_size=len(tokenizer), **shape, **ids, **start, **options))


def fitted(
    model: Any, tokenizer: Any, drawn: Material, how: Mapping[str, Any], subject: Subject, seed: int, folder: Path
) -> list[Finding]:
    """Train by Seq2SeqTrainer; gives what the callback found."""
    from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments

    options = {
        "output_dir": str(folder / "trainer"),
        "max_steps": subject.steps,
        "per_device_train_batch_size": 32,
        "learning_rate": 3e-3,
        "warmup_steps": 30,
        "logging_steps": 10,
        "eval_strategy": "steps",
        "eval_steps": max(1, subject.steps // 4),
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": seed,
        "weight_decay": 0.01,
        **how.get("arguments", {}),
    }
    padded = DataCollatorForSeq2Seq(tokenizer, model=model, pad_to_multiple_of=how.get("pad_to"))
    change: Callable[[Any, Any], Any] = how.get("batch", lambda batch, _: batch)
    trainer = Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(**options),
        train_dataset=[features(row, tokenizer, how) for row in drawn.train],
        eval_dataset=[features(row, tokenizer, how) for row in drawn.valid],
        data_collator=lambda rows: change(padded(rows), tokenizer),
        processing_class=tokenizer,
    )
    callback = SourcewiseCallback(trainer)
    trainer.add_callback(callback)
    trainer.train()
    return callback.diagnosis.findings


def features(row: Row, tokenizer: Any, how: Mapping[str, Any]) -> dict[str, list[int]]:
    """A row as a user tokenises it."""
    target = tokenizer(row.target)["input_ids"]
    made = {"input_ids": tokenizer(row.source)["input_ids"], "labels": target}
    change: Callable[[Any, Any], Any] = how.get("features", lambda made, _: made)
    return change(made, tokenizer)  # type: ignore[no-any-return]
