"""Healthy recipes as the public has them: whatever is said of them as an error or a warning is a false alarm."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from others import adapters, models, tasks, trainers
from others.case import Cases
from others.faults_recipe import clips, recipe, scored
from others.faults_trainer import STEADY, _nllb
from others.hosts import Planned
from others.speech import SpeechCollator, recordings
from others.tasks import EOS
from others.trainers import Trained

CASES = Cases()
control = CASES.control


@control("t5 with adafactor", "trainer", "the T5 fine-tuning tips: Adafactor, scale_parameter=False, a constant rate")
def _(broken: bool, seed: int, folder: Path) -> Trained:
    return adapters.fine_tuned(folder, seed, optim="adafactor", learning_rate=3e-3, warmup_steps=0, max_steps=160)


@control("t5 in bf16", "trainer", "google's own precision for T5")
def _(broken: bool, seed: int, folder: Path) -> Trained:
    return adapters.fine_tuned(folder, seed, bf16=True, max_steps=160)


@control("bart with label smoothing", "trainer", "examples/seq2seq of transformers: label_smoothing 0.1 for BART")
def _(broken: bool, seed: int, folder: Path) -> Trained:
    words = tasks.vocabulary()
    tokenizer = tasks.word_tokenizer(words)
    train, valid = (trainers.encoded(pairs, tokenizer) for pairs in tasks.split(tasks.numbers(2100, seed)))
    model = models.bart(len(words), seed)
    options = {"max_steps": 200, "label_smoothing_factor": 0.1, **STEADY}
    made = trainers.trainer(folder, model, tokenizer, train, valid, **options)
    return Trained(made, partial(trainers.exact, made, valid))


@control("lora on a trained base", "trainer", "peft's seq2seq examples: LoRA on q_proj and v_proj of all attention")
def _(broken: bool, seed: int, folder: Path) -> Trained:
    model, tokenizer, valid = adapters.bart_checkpoint(seed)
    model.config._name_or_path = "somebody/bart-numbers"
    train = tasks.numbers(1500, seed + 3, 2, 6)  # a little longer than it knows
    adapters.add_lora(model, ("q_proj", "v_proj"))
    rows = [trainers.encoded(pairs, tokenizer) for pairs in (train, valid)]
    made = trainers.trainer(folder, model, tokenizer, *rows, max_steps=150, **STEADY)
    return Trained(made, partial(trainers.exact, made, rows[1]))


@control("whisper as published", "trainer", "the Whisper fine-tuning notebook, from scratch")
def _(broken: bool, seed: int, folder: Path) -> Trained:
    words = tasks.vocabulary()
    tokenizer = tasks.word_tokenizer(words)
    rows = recordings(1000, seed, tokenizer)
    model = models.whisper(len(words), seed)
    made = trainers.trainer(folder, model, tokenizer, rows[:-96], rows[-96:], SpeechCollator(), max_steps=140)
    return Trained(made, partial(trainers.exact, made, rows[-96:]))


@control("nllb as published", "trainer", "transformers' translation script on NLLB, two target languages")
def _(broken: bool, seed: int, folder: Path) -> Trained:
    def label(ids: list[int], code: int) -> list[int]:
        return [code, *ids, EOS]

    return _nllb(folder, seed, label)


@control("tiny set learned by heart", "trainer", "everybody's first sanity check: over-fit a handful of examples")
def _(broken: bool, seed: int, folder: Path) -> Trained:
    words = tasks.vocabulary()
    tokenizer = tasks.word_tokenizer(words)
    rows: Any = trainers.encoded(tasks.numbers(16, seed), tokenizer)
    model = models.bart(len(words), seed)
    made = trainers.trainer(
        folder, model, tokenizer, rows, rows, max_steps=120, per_device_train_batch_size=8, **STEADY
    )
    return Trained(made, partial(trainers.exact, made, rows))


@control("signers apart", "recipe", "signer-independent splits, with a set of many signers whose accents are small")
def _(broken: bool, seed: int, folder: Path) -> Planned:
    train = clips(1000, seed, list(range(20)), accent=0.2)
    valid = clips(100, seed + 900, list(range(60, 65)), accent=0.2)
    return Planned(recipe(folder, train, valid, train__steps=400), scored(valid))
