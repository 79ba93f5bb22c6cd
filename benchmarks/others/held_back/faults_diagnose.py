"""Faults of people who have a folder and a table."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import torch
from others import adapters, models, tasks, trainers
from others.case import Cases
from others.faults_diagnose import saved, share_said, table
from others.hosts import Judged
from others.tasks import FRENCH

CASES = Cases()
fault = partial(CASES.fault, host="diagnose")


@fault(
    name="tokenizer of another model",
    origin="tokenizer and model from two checkpoints of one size: words in, other words out",
    what="the folder's tokenizer has the same words at other ids",
    expected="the tokenizer is not the one that the model was trained with",
    accepts="new:other-tokenizer",
)
def _(broken: bool, seed: int, folder: Path) -> Judged:
    model, tokenizer, pairs = adapters.bart_checkpoint(seed)
    if broken:
        words = tasks.vocabulary()
        own = words[4:]
        random.Random(seed).shuffle(own)
        tokenizer = tasks.word_tokenizer([*words[:4], *own])
    home = saved(folder / "model", model, tokenizer)
    return Judged(home, table(folder / "test.tsv", pairs), lambda: share_said(home, pairs))


@fault(
    name="end that generation does not know",
    origin="generation_config.json of another base: eos_token_id is not the one that was learned",
    what="generation waits for an end that the model never says, and goes on to the limit",
    expected="the end of text of the generation settings is not the one that targets end in",
    accepts="WIR009 new:generation-settings OUT007=eos|end.of.text",
)
def _(broken: bool, seed: int, folder: Path) -> Judged:
    model, tokenizer, pairs = adapters.bart_checkpoint(seed)
    if broken:
        model.generation_config.eos_token_id = 3
        model.generation_config.forced_eos_token_id = None
        model.generation_config.max_length = 24
    home = saved(folder / "model", model, tokenizer)

    def figure() -> float:  # special tokens are cut away only up to the end, as users see it
        return share_said(home, pairs)

    return Judged(home, table(folder / "test.tsv", pairs), figure)


@fault(
    name="language of another pair forced",
    origin="transformers #22553's kin: forced_bos_token_id of the pair that was tried before",
    what="generation_config.json forces French as the first token, the table is English",
    expected="the language that the folder forces is not that of the references",
    accepts="new:language-code new:generation-settings",
)
def _(broken: bool, seed: int, folder: Path) -> Judged:
    from transformers import DataCollatorForSeq2Seq

    words = tasks.vocabulary(*FRENCH, extra=("eng_Latn", "fra_Latn"))
    tokenizer = tasks.word_tokenizer(words)
    english, french = tasks.numbers(1600, seed), tasks.numbers(1600, seed, target=FRENCH)
    rows = []
    for i, (source, target) in enumerate(english):
        code, said = ("eng_Latn", target) if i % 2 else ("fra_Latn", french[i][1])
        row = dict(tokenizer(source))
        rows.append(row | {"labels": [words.index(code), *tokenizer(said)["input_ids"]]})
    model = adapters.trained(
        f"coded {seed}", models.bart(len(words), seed), rows[:1500], DataCollatorForSeq2Seq(tokenizer), 300
    )
    model.generation_config.forced_bos_token_id = words.index("fra_Latn" if broken else "eng_Latn")
    tokenizer.add_special_tokens({"additional_special_tokens": ["eng_Latn", "fra_Latn"]})
    pairs = english[1500:]
    home = saved(folder / "model", model, tokenizer)

    def figure() -> float:
        batch = tokenizer([source for source, _ in pairs], return_tensors="pt", padding=True)
        batch.pop("token_type_ids", None)
        outputs = trainers.said(model, batch)
        said = tokenizer.batch_decode(outputs, skip_special_tokens=True)
        return sum(a.strip() == b for a, (_, b) in zip(said, pairs, strict=True)) / len(pairs)

    return Judged(home, table(folder / "test.tsv", pairs), figure)


@fault(
    name="positions one row off",
    origin="BART's learned positions have an offset of two: the commonest slip of conversions from fairseq",
    what="rows of the encoder's and decoder's position tables are moved by two",
    expected="position embeddings are off: the order of the source is read wrongly, or the conversion is wrong",
    accepts="new:positions-off new:conversion",
)
def _(broken: bool, seed: int, folder: Path) -> Judged:
    model, tokenizer, pairs = adapters.bart_checkpoint(seed)
    if broken:
        with torch.no_grad():
            for side in (model.model.encoder, model.model.decoder):
                side.embed_positions.weight.copy_(side.embed_positions.weight.roll(-2, 0))
    home = saved(folder / "model", model, tokenizer)
    return Judged(home, table(folder / "test.tsv", pairs), lambda: share_said(home, pairs))
