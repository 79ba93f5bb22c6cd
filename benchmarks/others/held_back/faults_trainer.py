"""Faults of people who train by Hugging Face's Seq2SeqTrainer."""

from __future__ import annotations

import string
from functools import partial
from pathlib import Path
from typing import Any

import torch
from others import adapters, models, tasks, trainers
from others.case import Cases
from others.tasks import BOS, EOS, PAD
from others.trainers import Trained

CASES = Cases()
fault = partial(CASES.fault, host="trainer")
STEADY = {"lr_scheduler_type": "constant_with_warmup", "learning_rate": 5e-3}


def _numbers(seed: int, low: int = 2, high: int = 5, end: bool = True) -> Any:
    words = tasks.vocabulary()
    tokenizer = tasks.word_tokenizer(words, end)
    return words, tokenizer, *tasks.split(tasks.numbers(2100, seed, low, high))


def _padded(tokenizer: Any) -> Any:
    from transformers import DataCollatorForSeq2Seq

    return DataCollatorForSeq2Seq(tokenizer)


@fault(
    name="t5 attention mask dropped",
    origin="transformers #23179: the encoder's mask does not get where it should",
    what="the evaluation pads sources to 88 tokens and hands no attention_mask over",
    expected="padding is read: the attention mask is missing",
    accepts="WIR005",
)
def _(broken: bool, seed: int, folder: Path) -> Trained:
    words, tokenizer, *pairs = _numbers(seed)
    train, valid = (trainers.encoded(each, tokenizer) for each in pairs)
    padded = _padded(tokenizer)
    held = {tuple(row["input_ids"]) for row in valid}

    def collate(rows: list[Any]) -> dict[str, Any]:
        if tuple(rows[0]["input_ids"]) not in held:
            return dict(padded(rows))
        wide = [row | {"input_ids": row["input_ids"] + [PAD] * (88 - len(row["input_ids"]))} for row in rows]
        mask = [[int(token != PAD) for token in row["input_ids"]] for row in wide]
        batch = dict(padded([row | {"attention_mask": each} for row, each in zip(wide, mask, strict=True)]))
        if broken:
            del batch["attention_mask"]
        return batch

    made = trainers.trainer(folder, models.bart(len(words), seed), tokenizer, train, valid, collate, max_steps=150)
    return Trained(made, lambda: trainers.exact(made, valid))


@fault(
    name="schedule of one epoch only",
    origin="qlora #135's learning_rate 0.0; get_linear_schedule_with_warmup given the steps of one epoch",
    what="the schedule ends after 20 of 200 steps: from there on the rate is 0",
    expected="the learning rate is 0 after a tenth of the steps: the schedule ends too early",
    accepts="new:schedule-ended",
)
def _(broken: bool, seed: int, folder: Path) -> Trained:
    from transformers import get_linear_schedule_with_warmup

    words, tokenizer, *pairs = _numbers(seed)
    train, valid = (trainers.encoded(each, tokenizer) for each in pairs)
    model = models.bart(len(words), seed)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    schedule = get_linear_schedule_with_warmup(optimizer, 5, 20 if broken else 200)
    made = trainers.trainer(folder, model, tokenizer, train, valid, optimizers=(optimizer, schedule), max_steps=200)
    return Trained(made, lambda: trainers.exact(made, valid))


@fault(
    name="bart from scratch does not read",
    origin="transformers #18461: a BART from its configuration says the same whatever it is given",
    what="init_std 0.02, made for a width of 1,024, at a width of 64: cross-attention begins at nothing",
    expected="weights are drawn far too small for this width",
    accepts="WIR002 WIR016 new:init-too-small WIR020=init.std|initialis|drawn",
    also="TRN013",
)
def _(broken: bool, seed: int, folder: Path) -> Trained:
    words, tokenizer, *pairs = _numbers(seed)
    train, valid = (trainers.encoded(each, tokenizer) for each in pairs)
    model = models.bart(len(words), seed, layers=3, **({"init_std": 0.02} if broken else {}))
    made = trainers.trainer(folder, model, tokenizer, train, valid, max_steps=200, learning_rate=5e-4)
    return Trained(made, lambda: trainers.exact(made, valid))


@fault(
    name="bart labels shifted twice",
    origin="transformers #6238, #7961: labels are cut for decoder_input_ids, and the model shifts them again",
    what="labels are the target without its first word; the decoder reads two words behind",
    expected="labels are shifted twice",
    accepts="WIR007",
    also="WIR010",
)
def _(broken: bool, seed: int, folder: Path) -> Trained:
    words, tokenizer, *pairs = _numbers(seed)
    train, valid = (trainers.encoded(each, tokenizer) for each in pairs)
    padded = _padded(tokenizer)

    def collate(rows: list[Any]) -> dict[str, Any]:
        batch = dict(padded(rows))
        if broken:
            labels = batch["labels"]
            start = torch.full((len(labels), 2), EOS)
            batch["decoder_input_ids"] = torch.cat((start, labels), 1)[:, : labels.shape[1]].masked_fill(
                torch.cat((start, labels), 1)[:, : labels.shape[1]] == -100, PAD
            )
        return batch

    made = trainers.trainer(folder, models.bart(len(words), seed), tokenizer, train, valid, collate, max_steps=150)
    return Trained(made, lambda: trainers.exact(made, valid))


@fault(
    name="t5gemma labels without an end",
    origin="transformers #39656: Gemma's tokenizer puts no end of text, and T5Gemma never stops",
    what="labels do not end in the end of text",
    expected="the end of text is not learned: labels lack it",
    accepts="WIR009",
)
def _(broken: bool, seed: int, folder: Path) -> Trained:
    words, tokenizer, *pairs = _numbers(seed, 2, 4, end=False)
    train, valid = (trainers.encoded(each, tokenizer) for each in pairs)
    if not broken:
        train, valid = ([row | {"labels": [*row["labels"], EOS]} for row in rows] for rows in (train, valid))
    model = models.t5gemma(len(words), seed)
    made = trainers.trainer(folder, model, tokenizer, train, valid, max_steps=220, **STEADY)
    return Trained(made, lambda: trainers.exact(made, valid))


@fault(
    name="bart padded on the left at evaluation",
    origin="trlx #422, #424: padding_side is 'left' for a seq2seq model",
    what="training pads on the right, the evaluation's collator on the left: absolute positions begin at padding",
    expected="sources of the evaluation are padded on the left, those of the training on the right",
    accepts="new:padding-side",
    also="WIR005",
)
def _(broken: bool, seed: int, folder: Path) -> Trained:
    words, tokenizer, *pairs = _numbers(seed)
    train, valid = (trainers.encoded(each, tokenizer) for each in pairs)
    padded = _padded(tokenizer)
    held = {tuple(row["input_ids"]) for row in valid}

    def collate(rows: list[Any]) -> dict[str, Any]:
        tokenizer.padding_side = "left" if broken and tuple(rows[0]["input_ids"]) in held else "right"
        batch = dict(padded(rows))
        if tokenizer.padding_side == "left":  # labels stay on the right
            tokenizer.padding_side = "right"
            batch["labels"] = padded(rows)["labels"]
        return batch

    made = trainers.trainer(folder, models.bart(len(words), seed), tokenizer, train, valid, collate, max_steps=150)
    return Trained(made, lambda: trainers.exact(made, valid))


@fault(
    name="lora names no module",
    origin="peft #376, #778: target_modules of another family",
    what="LoRA for q and v on a BART, which has q_proj and v_proj: no adapter is there, and only a norm is trained",
    expected="nothing of the model is trained but a layer norm",
    accepts="WIR003 new:adapter-nothing",
)
def _(broken: bool, seed: int, folder: Path) -> Trained:
    model, tokenizer, _ = adapters.bart_checkpoint(seed)
    model.config._name_or_path = "somebody/bart-numbers"
    words = tasks.vocabulary()
    shift = len(tasks.ENGLISH)
    pairs = tasks.numbers(1600, seed + 3)
    rows = trainers.encoded(pairs, tokenizer)
    first = words.index(tasks.ENGLISH[0])
    for row in rows:  # each number one higher: a task that it does not know yet
        row["labels"] = [t if t < 4 else first + (t - first + 1) % shift for t in row["labels"]]
    adapters.add_lora(model, ("q", "v") if broken else ("q_proj", "v_proj", "out_proj", "fc1", "fc2"))
    model.model.decoder.layernorm_embedding.requires_grad_(True)
    made = trainers.trainer(folder, model, tokenizer, rows[:-96], rows[-96:], max_steps=200, **STEADY)
    return Trained(made, lambda: trainers.exact(made, rows[-96:]))


@fault(
    name="generation length left at its default",
    origin="Seq2SeqTrainer with predict_with_generate: generation_max_length is not set, and 20 tokens are said",
    what="targets are spelt in 16 to 28 letters, generation ends after 20 tokens",
    expected="the length that generation allows is shorter than the targets",
    accepts="DAT007 new:generation-length OUT005=max.?(new.?tokens|length) OUT007=max.?(new.?tokens|length)",
)
def _(broken: bool, seed: int, folder: Path) -> Trained:
    words = tasks.vocabulary(extra=string.ascii_lowercase)
    tokenizer = tasks.word_tokenizer(words)
    spelt = [(a, " ".join(" ".join(word) for word in b.split())) for a, b in tasks.numbers(2100, seed, 5, 6)]
    train, valid = (trainers.encoded(each, tokenizer) for each in tasks.split(spelt))
    options = {"predict_with_generate": True} | ({} if broken else {"generation_max_length": 40})
    model = models.bart(len(words), seed)
    made = trainers.trainer(
        folder, model, tokenizer, train, valid, max_steps=180, **(STEADY | {"learning_rate": 3e-3}), **options
    )
    return Trained(made, lambda: _generated(made, valid))


def _generated(made: Any, rows: Any) -> float:
    """The share that the trainer's own predict_with_generate says exactly."""
    ids = made.predict(rows).predictions
    wanted = [[token for token in row["labels"] if token > 3] for row in rows]
    return sum([t for t in row if t > 3] == want for row, want in zip(ids.tolist(), wanted, strict=True)) / len(rows)


@fault(
    name="own decoder inputs begin otherwise",
    origin="transformers #12488: greedy predictions do not match teacher forcing",
    what="decoder_input_ids are made by hand and begin with <s>, generation with the </s> of the config",
    expected="the decoder's start token at training is not that of generation",
    accepts="WIR010",
)
def _(broken: bool, seed: int, folder: Path) -> Trained:
    words, tokenizer, *pairs = _numbers(seed)
    train, valid = (trainers.encoded(each, tokenizer) for each in pairs)
    padded = _padded(tokenizer)

    def collate(rows: list[Any]) -> dict[str, Any]:
        batch = dict(padded(rows))
        labels = batch["labels"].masked_fill(batch["labels"] == -100, PAD)
        start = torch.full((len(labels), 1), BOS if broken else EOS)
        return batch | {"decoder_input_ids": torch.cat((start, labels[:, :-1]), 1)}

    made = trainers.trainer(folder, models.bart(len(words), seed), tokenizer, train, valid, collate, max_steps=150)
    return Trained(made, lambda: trainers.exact(made, valid))


@fault(
    name="t5 relative bias wiped",
    origin="transformers #17886: relative_attention_bias after a pruning of heads",
    what="the encoder's relative position bias is zero and stays so: the order of the source is unread",
    expected="the order of the source is not read: no positions",
    accepts="new:order-unread WIR003=relative|position",
)
def _(broken: bool, seed: int, folder: Path) -> Trained:
    def wipe(model: Any) -> None:
        if broken:
            bias = model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
            torch.nn.init.zeros_(bias)
            bias.requires_grad_(False)

    return adapters.fine_tuned(folder, seed, wipe, max_steps=150)
