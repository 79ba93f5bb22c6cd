"""A Seq2SeqTrainer as people set it up, and what its model then says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from others.tasks import BOS, EOS, PAD, UNK, Pair

Row = dict[str, Any]


@dataclass
class Trained:
    """A trainer still to be run, and the figure that is taken of it afterwards."""

    trainer: Any
    figure: Callable[[], float]


def encoded(pairs: Sequence[Pair], tokenizer: Any, **options: Any) -> list[Row]:
    """Rows as `tokenizer(source, text_target=target)` makes them."""
    return [dict(tokenizer(source, text_target=target, **options)) for source, target in pairs]


def trainer(
    folder: Path,
    model: Any,
    tokenizer: Any,
    train: Any,
    valid: Any,
    collator: Any = None,
    kind: Any = None,
    optimizers: Any = (None, None),
    **options: Any,
) -> Any:
    """A Seq2SeqTrainer of 300 steps with two evaluations."""
    from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments

    steps = options.pop("max_steps", 300)
    arguments = {
        "per_device_train_batch_size": 32,
        "per_device_eval_batch_size": 32,
        "learning_rate": 3e-3,
        "warmup_steps": 30,
        "logging_steps": 10,
        "eval_strategy": "steps",
        "eval_steps": max(1, steps // 2),
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "remove_unused_columns": False,
        "seed": 0,
    }
    return (kind or Seq2SeqTrainer)(
        model=model,
        args=Seq2SeqTrainingArguments(output_dir=str(folder), max_steps=steps, **(arguments | options)),
        train_dataset=train,
        eval_dataset=valid,
        data_collator=collator or DataCollatorForSeq2Seq(tokenizer, model=model),
        processing_class=tokenizer,
        optimizers=optimizers,
    )


def said(model: Any, batch: Mapping[str, Any], **options: Any) -> list[list[int]]:
    """What `model.generate` says, without special tokens."""
    with torch.no_grad():
        given = {name: value for name, value in batch.items() if name not in ("labels", "decoder_input_ids")}
        out = model.eval().generate(**given, **({"max_new_tokens": 12, "do_sample": False} | options))
    return [[token for token in row if token not in (PAD, EOS, BOS)] for row in out.tolist()]


def exact(
    made: Any, rows: Sequence[Row], wanted: Sequence[Sequence[int]] | None = None, size: int = 32, **options: Any
) -> float:
    """The share of rows that the trained model of a trainer generates exactly, in batches as its collator makes them.

    `wanted` are the ids of what is right, without special tokens; the labels of the rows where it is not given.
    """
    if wanted is None:
        wanted = [[token for token in row["labels"] if token not in (PAD, EOS, BOS, UNK, -100)] for row in rows]
    right = 0
    for start in range(0, len(rows), size):
        batch = made.data_collator([dict(row) for row in rows[start : start + size]])
        outputs = said(made.model, batch, **options)
        right += sum(a == list(b) for a, b in zip(outputs, wanted[start : start + size], strict=True))
    return right / len(rows)
