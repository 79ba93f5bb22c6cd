"""Seen only in use: three faults of checkpoints and of what they are given."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from others import adapters, hosts, models, tasks, trainers
from others.case import Cases

CASES = Cases()


def saved(folder: Path, model: Any, tokenizer: Any, pairs: Sequence[tasks.Pair]) -> tuple[Path, Path]:
    """The folder of a model, and a table of pairs beside it."""
    place = folder / "model"
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    data = folder / "test.tsv"
    data.write_text("".join(f"{a}\t{b}\n" for a, b in [("source", "target"), *pairs]), encoding="utf-8")
    return place, data


def opened(place: Path, pairs: Sequence[tasks.Pair], **options: Any) -> float:
    """The share of exact outputs of a folder, as its own settings have them made."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, DataCollatorForSeq2Seq

    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(place), AutoTokenizer.from_pretrained(place)
    collate, right = DataCollatorForSeq2Seq(tokenizer), 0
    for start in range(0, len(pairs), 32):
        part = pairs[start : start + 32]
        rows = [dict(tokenizer(source)) for source, _ in part]
        out = model.eval().generate(**{k: v for k, v in collate(rows).items() if k != "token_type_ids"}, **options)
        said = tokenizer.batch_decode(out, skip_special_tokens=True)
        right += sum(a.strip() == b for a, (_, b) in zip(said, part, strict=True))
    return right / len(pairs)


@CASES.fault(
    "generation-of-the-base-kept",
    "diagnose",
    origin="https://github.com/huggingface/transformers/issues/6502, https://github.com/huggingface/transformers/"
    "issues/8005 (min_length 56, no_repeat_ngram_size 3, length_penalty 2 of a summarizer)",
    what="the generation settings of the base are kept: outputs may not end before its least length, nor repeat "
    "three tokens",
    expected="generation settings (min_length, no_repeat_ngram_size) forbid the outputs that are right",
    accepts="new:generation-settings",
)
def generation_of_the_base(broken: bool, seed: int, folder: Path) -> Any:
    model, tokenizer, valid = adapters.bart_checkpoint(seed)
    kept = {"max_length": 24, "num_beams": 2}
    if broken:
        kept |= {"min_length": 10, "no_repeat_ngram_size": 3, "length_penalty": 2.0, "early_stopping": True}
    for name, value in kept.items():
        setattr(model.generation_config, name, value)
    place, data = saved(folder, model, tokenizer, valid)
    return hosts.Judged(place, data, lambda: opened(place, valid))


PIECES = {"sieben": "sie@@ ben", "null": "nu@@ ll", "zwei": "zw@@ ei", "acht": "ac@@ ht"}


@CASES.fault(
    "source-not-split-as-in-training",
    "diagnose",
    origin="https://github.com/facebookresearch/fairseq/issues/253 (interactive without BPE), "
    "https://github.com/facebookresearch/fairseq-lua/issues/45",
    what="the training sources were split by BPE before (zw@@ ei); the test sources are given as they are",
    expected="words of the test sources are unknown to the tokenizer: they were not preprocessed as in training",
    accepts="new:source-not-preprocessed",
)
def source_not_split(broken: bool, seed: int, folder: Path) -> Any:
    from transformers import DataCollatorForSeq2Seq

    def split(pairs: Sequence[tasks.Pair]) -> list[tasks.Pair]:
        return [(" ".join(PIECES.get(word, word) for word in a.split()), b) for a, b in pairs]

    known = [word for word in tasks.vocabulary() if word not in PIECES]
    words = [*known, *(piece for pieces in PIECES.values() for piece in pieces.split())]
    tokenizer = tasks.word_tokenizer(words)
    train, valid = tasks.split(tasks.numbers(2100, seed))
    rows = trainers.encoded(split(train), tokenizer)
    model = adapters.trained(
        f"marian-pieces-{seed}", models.marian(len(words), seed), rows, DataCollatorForSeq2Seq(tokenizer), steps=250
    )
    test = valid if broken else split(valid)
    place, data = saved(folder, model, tokenizer, test)
    return hosts.Judged(place, data, lambda: opened(place, test, max_new_tokens=12))


@CASES.fault(
    "trained-head-tied-away",
    "diagnose",
    origin="https://github.com/huggingface/transformers/issues/45127 (collapse after saving with tie_word_embeddings)",
    what="the output layer was trained apart from the embedding, and the saved configuration says that they are one: "
    "it was left out of the file, and what is opened has the embedding as its output layer",
    expected="the output layer of the checkpoint is not what is used: the configuration ties it to the embedding",
    accepts="new:head-tied",
)
def trained_head_tied_away(broken: bool, seed: int, folder: Path) -> Any:
    from safetensors.torch import load_file, save_file
    from transformers import DataCollatorForSeq2Seq

    words = tasks.vocabulary()
    tokenizer = tasks.word_tokenizer(words)
    train, valid = tasks.split(tasks.numbers(2100, seed))
    rows = trainers.encoded(train, tokenizer)
    model = models.bart(len(words), seed, tie_word_embeddings=False)
    model = adapters.trained(f"bart-untied-{seed}", model, rows, DataCollatorForSeq2Seq(tokenizer), steps=250)
    place, data = saved(folder, model, tokenizer, valid)
    if broken:
        config = json.loads((place / "config.json").read_text())
        (place / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}, indent=2))
        weights = load_file(place / "model.safetensors")
        del weights["lm_head.weight"]  # as a saver leaves out what the configuration says is the embedding
        save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    return hosts.Judged(place, data, lambda: opened(place, valid, max_new_tokens=12))
