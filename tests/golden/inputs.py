"""What the golden files were computed from, read from this folder: models, batches, recipes, questions of the exam."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sourcewise.config import Recipe
from sourcewise.data.batches import IGNORED, Batch, Source, pad, pad_features

HERE = Path(__file__).parent
BENCHMARKS = HERE.parents[1] / "benchmarks"
FAMILIES = ("t5", "bart", "rnn", "decoder", "bridge")  # `bridge`: a t5 that reads features and a prompt
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
SIZE, DIMS = 64, 8  # most entries of the vocabulary; width of features, as the embedded digits have it
STEPS = 20  # of a curve


def batch(family: str) -> Batch:
    """Five examples of several lengths, padded on both sides; `bridge` gets features, each behind a prompt."""
    table = json.loads((HERE / "batch.json").read_text())
    labels, _ = pad(table["labels"], IGNORED)
    if family != "bridge":
        source = Source(*pad(table["sources"], 0))
    else:
        features, frames = pad_features([matrix.numpy() for matrix in waves(table["frames"])])
        source = Source(*pad(table["prompts"], 0), features, frames)
    return Batch(source, labels, list(range(len(labels))))


def waves(lengths: list[int]) -> list[Tensor]:
    """Features (frames, DIMS) that are the same on every machine: sixteenths, of integer arithmetic alone."""
    made = []
    for row, length in enumerate(lengths):
        places = torch.arange(length * DIMS).view(length, DIMS)
        made.append(((places * places * 7 + places * (3 * row + 5) + row) % 61 - 30).float() / 16)
    return made


def recipe(family: str, output: Path) -> Recipe:
    """Twenty steps from the weights in `models/`, so that no order of random draws matters; one thread, fp32."""
    pairs = {"pairs": str(HERE / "pairs.tsv")}
    texts = {"train": pairs, "valid": pairs | {"limit": 20}}
    digits = {use: {"builtin": "digits", "limit": limit} for use, limit in (("train", 200), ("valid", 20))}
    data: dict[str, Any] = {
        **(digits if family == "bridge" else texts),
        "tokenizer": str(HERE / "tokenizer"),
        "vocabulary": SIZE,
    }
    data |= {"max_source": 32, "max_target": 32}
    train = {"steps": STEPS, "log_every": 1, "evaluate_every": STEPS, "warmup_steps": 5, "batch_tokens": 400}
    train |= {"learning_rate": 3e-3, "precision": "fp32", "threads": 1, "device": "cpu", "preflight": False}
    tree: dict[str, Any] = {"name": family, "output": str(output), "data": data, "train": train}
    tree["model"] = {"weights": str(HERE / "models" / family)}
    tree["generation"] = {"beams": 1, "max_new_tokens": 12}
    return Recipe.model_validate(tree)


# (fault, subject): of each kind the quickest; the first five take a second or three each.
QUICK = (
    ("other frames", "digits t5"),
    ("NaN features", "digits t5"),
    ("fp16 overflow", "digits t5"),
    ("never unfrozen", "digits rnn"),
    ("same source", "dates rnn"),
)
FAULTS = (
    *QUICK,
    ("weight decay 100", "digits t5"),
    ("one target", "digits rnn"),
    ("noise over everything", "digits decoder"),
    ("exploding features", "digits t5"),
    ("wrong tokenizer", "dates t5"),
    ("one clip for all", "digits t5"),
    ("all-zero features", "digits t5"),
    ("learning rate 0", "digits rnn"),
    ("causal mask one off", "digits t5"),
    ("cross-attention masked", "digits t5"),
    ("frames cut", "digits t5"),
    ("gradient upwards", "dates decoder"),
    ("another clip", "digits t5"),
    ("dropout 0.9", "digits t5"),
    ("padding unmasked", "digits t5"),
    ("cross-attention zeroed", "dates bart"),
    ("loss on padding", "digits rnn"),
    ("wrong start token", "digits rnn"),
    ("labels shifted twice", "digits rnn"),
    ("true bypass", "digits t5"),
    ("untranslated targets", "dates decoder"),
    ("features /1000", "digits t5"),  # from here on they train to the end
    ("learning rate /1000", "digits t5"),
    ("outputs cut", "digits rnn"),
    ("train is valid", "digits rnn"),
)
CONTROLS = (
    ("as it is: digits t5", "digits t5"),
    ("as it is: digits rnn", "digits rnn"),
    ("as it is: digits decoder", "digits decoder"),
    ("as it is: dates decoder", "dates decoder"),
    ("smoke run", "dates decoder"),
    ("frozen encoder", "digits t5"),
    ("word dropout", "digits rnn"),
    ("large", "digits decoder"),
    ("early", "digits rnn"),
    ("two targets", "dates rnn"),
)
