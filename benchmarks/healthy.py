"""Healthy trainings of the kinds that everybody begins with: the doctor must call none of them ill.

    python benchmarks/healthy.py [--only WORD] [--seed 0] [--jobs 2] [--json FILE]

Ten classic exercises, each by `sourcewise train` and as a T5 or BART in a `Seq2SeqTrainer` under our callback; and
trainings in bf16 with small and large batches. A row a training: findings that were errors (CODE) or warnings (CODE?)
at any time, and how it ended. Exit status 1 unless all are healthy at their end. Half an hour on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

import sourcewise
from sourcewise.config import Recipe
from sourcewise.diagnosis.answer import Diagnosis
from sourcewise.diagnosis.finding import Finding
from sourcewise.training.run import Run

Draw = Callable[[np.random.Generator], tuple[str, str]]  # a source and its target
LETTERS = "abcdefghijklmnopqrstuvwxyz"
TRAIN, VALID = 3000, 200
CAREFUL = {"train.scale_updates": True, "train.learning_rate": 1.5e-2}  # times each tensor's size: BART's are small


def spelt(change: Callable[[str], str], letters: int, shortest: int, longest: int, rng: np.random.Generator) -> Any:
    """A word of so many different letters, and what becomes of it."""
    word = "".join(rng.choice(list(LETTERS[:letters]), int(rng.integers(shortest, longest + 1))))
    return word, change(word)


def added(smallest: int, largest: int, rng: np.random.Generator) -> tuple[str, str]:
    """Two numbers, and their sum."""
    a, b = (int(n) for n in rng.integers(smallest, largest, 2))
    return f"{a}+{b}", str(a + b)


def moved(by: int, letters: int, word: str) -> str:
    """Caesar's cipher."""
    return "".join(LETTERS[(LETTERS.index(letter) + by) % letters] for letter in word)


def backwards(word: str) -> str:
    return word[::-1]


def in_order(word: str) -> str:
    return "".join(sorted(word))


EXERCISES: dict[str, Draw] = {
    "reverse, 3 letters, length 8": partial(spelt, backwards, 3, 8, 8),
    "reverse, 26 letters, free length": partial(spelt, backwards, 26, 2, 9),
    "copy, 5 letters, free length": partial(spelt, str, 5, 3, 10),
    "copy, 26 letters, length 6": partial(spelt, str, 26, 6, 6),
    "sort, 4 letters, length 10": partial(spelt, in_order, 4, 10, 10),
    "sort, 26 letters, free length": partial(spelt, in_order, 26, 2, 8),
    "add, two digits": partial(added, 10, 100),
    "add, one or two digits": partial(added, 0, 100),
    "caesar, 6 letters, length 7": partial(spelt, partial(moved, 2, 6), 6, 7, 7),
    "caesar, 26 letters, free length": partial(spelt, partial(moved, 3, 26), 26, 3, 9),
}


@dataclass(frozen=True)
class Training:
    """One to be judged: an exercise, who trains it (train, t5, bart), and how."""

    exercise: str
    host: str
    precision: str = "fp32"
    batch: int = 32
    steps: int = 300
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        more = "".join(f", {key} {value}" for key, value in self.options.items())
        return f"{self.exercise}: {self.host} {self.precision}, batch {self.batch}{more}"


def trainings(seed: int) -> list[Training]:
    """All of them."""
    hosts = [("t5", "bf16"), ("bart", "bf16"), ("t5", "fp32"), ("bart", "fp32")]
    found = [Training(name, "train", steps=steps(name), seed=seed) for name in EXERCISES]
    found += [Training(name, *hosts[i % len(hosts)], steps=steps(name), seed=seed) for i, name in enumerate(EXERCISES)]
    short, free = "copy, 26 letters, length 6", "caesar, 26 letters, free length"
    found += [
        *(
            Training(short, host, "bf16", batch, 9600 // batch + 600, seed)
            for host in ("t5", "bart")
            for batch in (2, 64)
        ),
        Training(free, "t5", "bf16", 8, 2 * steps(free), seed),
        Training(free, "t5", "fp16", 32, steps(free), seed),
        Training(free, "train", "bf16", steps=steps(free), seed=seed),
        Training(free, "train", "bf16", steps=800, seed=seed, options={"model.family": "bart"} | CAREFUL),
    ]
    return found


def steps(exercise: str) -> int:
    """After which `evaluate` no longer calls it failed: to carry is harder than to shift."""
    return 8000 if exercise.startswith("add") else 1500


def rate(training: Training) -> float:
    """Of somebody's Trainer: lower where a step has few examples, and for sums, on which a T5 stays put at 3e-3."""
    return 3e-3 if training.batch >= 32 and not training.exercise.startswith("add") else 1e-3


def drawn(training: Training) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Pairs to train on, and others: none comes twice."""
    rng = np.random.default_rng([7, training.seed, *training.exercise.encode()])
    pairs: dict[str, str] = {}
    while len(pairs) < TRAIN + VALID:
        source, target = EXERCISES[training.exercise](rng)
        pairs[source] = target
    listed = list(pairs.items())
    return listed[:TRAIN], listed[TRAIN:]


def judged(training: Training) -> dict[str, Any]:
    """Train, and tell what was found."""
    torch.set_num_threads(1)
    started, said = time.perf_counter(), io.StringIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        warnings.simplefilter("ignore")
        try:
            by = by_train if training.host == "train" else by_trainer
            found, last = by(training, Path(folder))
        except Exception as error:
            found, last = [], [Finding("", "broke", "error", f"{type(error).__name__}: {error}", "")]
    once = {(finding.code or finding.evidence, finding.level) for finding in [*found, *last]}
    row = {level: sorted(code for code, how in once if how == level) for level in ("error", "warning", "note")}
    verdict = "ill" if row["error"] else Diagnosis(last).verdict
    return {"name": training.name, "verdict": verdict, **row, "seconds": round(time.perf_counter() - started, 1)}


def by_train(training: Training, folder: Path) -> tuple[list[Finding], list[Finding]]:
    """By a recipe; what the pre-flight refuses is told, and trained anyway."""
    for split, pairs in zip(("train", "valid"), drawn(training), strict=True):
        lines = "".join(f"{source}\t{target}\n" for source, target in pairs)
        (folder / f"{split}.tsv").write_text(f"source\ttarget\n{lines}", encoding="utf-8")
    model = {"d_model": 64, "d_ff": 128, "heads": 4, "encoder_layers": 2, "decoder_layers": 1, "dropout": 0.0}
    steps = {"steps": training.steps, "evaluate_every": training.steps // 3, "log_every": 10, "warmup_steps": 40}
    recipe = {
        "name": "run",
        "output": str(folder),
        "seed": training.seed,
        "data": {split: {"pairs": str(folder / f"{split}.tsv")} for split in ("train", "valid")},
        "model": model,
        "train": {"learning_rate": 3e-3, "batch_size": training.batch, "threads": 1, "device": "cpu"} | steps,
        "generation": {"beams": 1, "max_new_tokens": 32},
    }
    recipe["data"] |= {"unit": "characters", "vocabulary": 64, "max_target": 32}
    recipe["train"] |= {"precision": training.precision}
    for key, value in training.options.items():
        section, _, name = key.partition(".")
        recipe[section] |= {name: value}
    before = sourcewise.preflight(Recipe.model_validate(recipe)).findings
    if any(finding.level == "error" for finding in before):
        recipe["train"] |= {"preflight": False}
    with mock.patch("sourcewise.api.LiveReport", mock.MagicMock):  # no pages are drawn
        sourcewise.train(Recipe.model_validate(recipe))
    keys = ("code", "name", "level", "evidence", "cure")
    lines = [line for line in Run(folder / "run").metrics() if line["kind"] == "finding"]
    on_the_way = [Finding(*(line[key] for key in keys)) for line in lines]
    return [*before, *on_the_way], sourcewise.diagnose(folder / "run").findings


def by_trainer(training: Training, folder: Path) -> tuple[list[Finding], list[Finding]]:
    """By Hugging Face's Seq2SeqTrainer, with our callback in it."""
    from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments

    from sourcewise.integrations.transformers import SourcewiseCallback

    words = tokenizer()
    torch.manual_seed(training.seed)
    model = stranger(training.host, words)
    train, valid = (
        [{"input_ids": words(s)["input_ids"], "labels": words(t)["input_ids"]} for s, t in pairs]
        for pairs in drawn(training)
    )
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(folder),
        max_steps=training.steps,
        per_device_train_batch_size=training.batch,
        learning_rate=rate(training),
        warmup_steps=40,
        logging_steps=10,
        eval_strategy="steps",
        eval_steps=training.steps // 3,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=training.seed,
        **({} if training.precision == "fp32" else {training.precision: True}),
    )
    made = Seq2SeqTrainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=valid,
        data_collator=DataCollatorForSeq2Seq(words, model=model),
        processing_class=words,
    )
    callback = SourcewiseCallback(made)
    made.add_callback(callback)
    made.train()
    told = [each for line in made.state.log_history for each in line.get("sourcewise_findings", ())]
    return [Finding(**each) for each in told], callback.diagnosis.findings


def tokenizer() -> Any:
    """Characters, each text ended."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "</s>", "<unk>"]
    ids = {piece: i for i, piece in enumerate([*special, *LETTERS, *"0123456789+"])}
    made = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    made.decoder = decoders.Fuse()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def stranger(family: str, words: Any) -> Any:
    """A T5 or BART of transformers, small, from its configuration."""
    from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5ForConditionalGeneration

    pad, eos = words.pad_token_id, words.eos_token_id
    ids = {"vocab_size": len(words), "pad_token_id": pad, "eos_token_id": eos}
    if family == "t5":
        shape = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_decoder_layers": 1, "num_heads": 4}
        return T5ForConditionalGeneration(T5Config(**ids, **shape, dropout_rate=0.0, decoder_start_token_id=pad))
    stacks = {"encoder": 2, "decoder": 1}
    shape = {"d_model": 64, "max_position_embeddings": 64, "init_std": 0.1, "dropout": 0.0}
    shape |= {f"{stack}_layers": layers for stack, layers in stacks.items()}
    shape |= {f"{stack}_{key}": size for stack in stacks for key, size in (("attention_heads", 4), ("ffn_dim", 128))}
    return BartForConditionalGeneration(
        BartConfig(**ids, **shape, bos_token_id=pad, decoder_start_token_id=eos, forced_eos_token_id=None)
    )


def told(row: dict[str, Any]) -> str:
    """A row in a line."""
    said = [*row["error"], *(f"{code}?" for code in row["warning"])]
    notes = f"   (notes: {' '.join(row['note'])})" if row["note"] else ""
    return f"{row['seconds']:6.1f} s  {row['name']}: {' '.join([row['verdict'], *said])}{notes}"


def rows(asked: list[Training], jobs: int) -> Iterator[dict[str, Any]]:
    """In order, as they are done."""
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(judged, asked)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="trainings whose name holds this")
    parser.add_argument("--seed", type=int, default=0, help="other data, other weights")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, a core each")
    parser.add_argument("--json", type=Path, help="write the rows there")
    arguments = parser.parse_args()
    asked = [training for training in trainings(arguments.seed) if (arguments.only or "") in training.name]
    if not asked:
        parser.error(f"no training's name holds {arguments.only!r}")
    found = []
    for row in rows(asked, arguments.jobs):
        found.append(row)
        print(told(row), flush=True)
    healthy, warned = sum(row["verdict"] == "healthy" for row in found), sum(bool(row["warning"]) for row in found)
    print(f"{len(found)} trainings, {healthy} healthy, {warned} with warnings")
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": found}, indent=2) + "\n", encoding="utf-8")
    return 0 if healthy == len(found) else 1


if __name__ == "__main__":
    sys.exit(main())
