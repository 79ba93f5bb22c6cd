"""Healthy recipes."""

from __future__ import annotations

import random
import string
from functools import partial
from pathlib import Path
from typing import Any

from others import adapters, models, tasks, trainers
from others.case import Cases
from others.faults_loop import Loop, _adam, _nll, _rnn_logits, _rnn_loop, _transformer_loop
from others.trainers import Trained

CASES = Cases()
control = CASES.control
STEADY = {"lr_scheduler_type": "constant_with_warmup", "learning_rate": 5e-3}


def _bart(folder: Path, seed: int, train: Any, valid: Any, **options: Any) -> Trained:
    words = tasks.vocabulary(extra=string.ascii_lowercase)
    tokenizer = tasks.word_tokenizer(words)
    rows = [trainers.encoded(pairs, tokenizer) for pairs in (train, valid)]
    made = trainers.trainer(
        folder, models.bart(len(words), seed), tokenizer, *rows, **(STEADY | {"learning_rate": 3e-3}), **options
    )
    return Trained(made, partial(trainers.exact, made, rows[1], max_new_tokens=40))


@control("streamed rows", "trainer", "datasets' streaming=True: an iterable that is drawn as it goes")
def _(broken: bool, seed: int, folder: Path) -> Trained:
    from datasets import IterableDataset

    words = tasks.vocabulary()
    tokenizer = tasks.word_tokenizer(words)
    train, valid = (trainers.encoded(pairs, tokenizer) for pairs in tasks.split(tasks.numbers(6000, seed)))
    stream = IterableDataset.from_generator(_rows, gen_kwargs={"rows": train})
    made = trainers.trainer(folder, models.bart(len(words), seed), tokenizer, stream, valid, max_steps=150, **STEADY)
    return Trained(made, partial(trainers.exact, made, valid))


def _rows(rows: Any) -> Any:
    yield from rows


@control("t5gemma as published", "trainer", "T5Gemma's model card: labels alone, ended, padded with -100")
def _(broken: bool, seed: int, folder: Path) -> Trained:
    words = tasks.vocabulary()
    tokenizer = tasks.word_tokenizer(words)
    train, valid = (trainers.encoded(pairs, tokenizer) for pairs in tasks.split(tasks.numbers(2100, seed, 2, 4)))
    made = trainers.trainer(folder, models.t5gemma(len(words), seed), tokenizer, train, valid, max_steps=350)
    return Trained(made, partial(trainers.exact, made, valid))


@control("noisy references", "trainer", "web-mined pairs: one reference in ten has a wrong word")
def _(broken: bool, seed: int, folder: Path) -> Trained:
    draw = random.Random(seed)
    pairs = []
    for source, target in tasks.numbers(2600, seed):
        said = target.split()
        if draw.random() < 0.1:
            said[draw.randrange(len(said))] = draw.choice(tasks.ENGLISH)
        pairs.append((source, " ".join(said)))
    return _bart(folder, seed, pairs[:-96], pairs[-96:], max_steps=160)


@control("transformer of the tutorial", "loop", "PyTorch's translation tutorial with nn.Transformer")
def _(broken: bool, seed: int, folder: Path, watch: Any) -> Loop:
    return _transformer_loop(seed, watch)


@control("long targets", "trainer", "long-form generation: targets of 16 to 28 letters")
def _(broken: bool, seed: int, folder: Path) -> Trained:
    spelt = [(a, " ".join(" ".join(word) for word in b.split())) for a, b in tasks.numbers(2100, seed, 5, 6)]
    return _bart(folder, seed, *tasks.split(spelt), max_steps=220, predict_with_generate=True, generation_max_length=40)


@control("encoder frozen on purpose", "trainer", "a pretrained encoder is kept, its decoder fine-tuned")
def _(broken: bool, seed: int, folder: Path) -> Trained:
    def freeze(model: Any) -> None:
        for name, weight in model.encoder.named_parameters():
            weight.requires_grad_("embed_tokens" in name)

    return adapters.fine_tuned(folder, seed, freeze, max_steps=160)


@control("gradient accumulation", "trainer", "small cards: batches of 8, four to a step")
def _(broken: bool, seed: int, folder: Path) -> Trained:
    pairs = tasks.split(tasks.numbers(2100, seed))
    small = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4, "max_steps": 150}
    return _bart(folder, seed, *pairs, **small)


@control("gru of the tutorial", "loop", "PyTorch's seq2seq tutorial: a GRU with Bahdanau attention, two optimizers")
def _(broken: bool, seed: int, folder: Path, watch: Any) -> Loop:
    return _rnn_loop(seed, watch, _adam, lambda e, d, b: _nll(_rnn_logits(e, d, b), b[1][:, 1:]))
