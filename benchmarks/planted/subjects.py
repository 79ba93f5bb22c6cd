"""The healthy trainings in which faults are planted: a data set, a family, and how long.

A subject belongs to one half of the exam. Thresholds may be looked at on the practice half; the other half has other
pairs of data set and family, and other seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Split = Literal["practice", "exam"]
SEEDS: dict[Split, int] = {"practice": 0, "exam": 1000}  # of the first subject; `--seed` is added


@dataclass(frozen=True)
class Subject:
    """A training that is healthy as it stands, in seconds on one core."""

    name: str
    split: Split
    data: Literal["digits", "dates", "fsdd", "multi30k"]
    family: str
    steps: int
    size: int = 1500  # examples it is trained on
    options: Mapping[str, Any] = field(default_factory=dict)
    stranger: bool = False  # trained by Hugging Face's Seq2SeqTrainer

    @property
    def of_features(self) -> bool:
        """Whether its sources are matrices."""
        return self.data in ("digits", "fsdd")


COMMON: dict[str, Any] = {
    "name": "run",
    "data.vocabulary": 64,
    "data.max_target": 32,
    "model.d_model": 64,
    "model.d_ff": 128,
    "model.heads": 4,
    "model.encoder_layers": 2,
    "model.decoder_layers": 1,
    "model.dropout": 0.0,
    "train.learning_rate": 3e-3,
    "train.warmup_steps": 40,
    "train.batch_size": 32,
    "train.batch_tokens": 1600,
    "train.precision": "fp32",
    "train.log_every": 10,
    "train.threads": 1,
    "train.device": "cpu",
    "generation.beams": 1,
    "generation.max_new_tokens": 32,
}
CAREFUL = {"train.scale_updates": True, "train.learning_rate": 1.5e-2}  # times each tensor's own size
HEARD = {"train.ctc_weight": 0.5, "model.bridge.stride": 8}  # speech is aligned by a second loss
SENTENCES = {"data.vocabulary": 600, "data.max_target": 64, "generation.max_new_tokens": 64}
WIDE = {"model.decoder_layers": 3}

SUBJECTS: dict[str, Subject] = {
    subject.name: subject
    for subject in (
        Subject("digits t5", "practice", "digits", "t5", 300),
        Subject("digits rnn", "practice", "digits", "rnn", 260),
        Subject("dates rnn", "practice", "dates", "rnn", 240, 3000),
        Subject("dates decoder", "practice", "dates", "decoder", 260, 3000, WIDE),
        Subject("dates hf t5", "practice", "dates", "t5", 300, 2000, stranger=True),
        Subject("digits decoder", "exam", "digits", "decoder", 240, options=WIDE),
        Subject("dates t5", "exam", "dates", "t5", 350, 3000),
        Subject("dates bart", "exam", "dates", "bart", 800, 3000, CAREFUL),
        Subject("fsdd t5", "exam", "fsdd", "t5", 1500, 3000, CAREFUL | HEARD),
        Subject("multi30k rnn", "exam", "multi30k", "rnn", 1300, 8000, SENTENCES),
        Subject(
            "dates hf t5 v1.1", "exam", "dates", "t5", 450, 2000, {"feed_forward_proj": "gated-gelu"}, stranger=True
        ),
    )
}


def recipe_options(subject: Subject, seed: int) -> dict[str, Any]:
    """The options of its recipe but for where the data is: dotted keys."""
    options = {**COMMON, "model.family": subject.family, "train.steps": subject.steps, "seed": seed}
    return {**options, "train.evaluate_every": max(1, subject.steps // 4), **subject.options}


def nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """{"train.steps": 3} → {"train": {"steps": 3}}."""
    tree: dict[str, Any] = {}
    for key, value in options.items():
        *sections, last = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
    return tree
