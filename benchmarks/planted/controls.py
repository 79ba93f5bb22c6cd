"""Healthy trainings of many kinds: nothing in them is an error, and hardly anything a warning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from planted.fault import Fault, Spoil, fault
from planted.faults_data import everywhere, scaled
from planted.material import Material, Row
from planted.subjects import SUBJECTS


def aim(target: Callable[[Row], str]) -> Spoil:
    """Another target for each row."""
    return everywhere(lambda rows, rng: [replace(row, target=target(row)) for row in rows])


def doubled(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    """Each source twice as long, and so its target."""
    out = []
    for row, other in zip(rows, [*rows[1:], rows[0]], strict=True):
        matrix = np.concatenate((row.features, other.features))
        out.append(replace(row, matrix=matrix, frames=len(matrix), target=f"{row.target} {other.target}"))
    return out


def three_replies(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    """Each source with three targets, all of them right."""
    out = []
    for row in rows[: len(rows) // 3]:
        year, month, day = row.target.split("-")
        for i, said in enumerate((row.target, f"{day}.{month}.{year}", f"{month}/{day}/{year}")):
            out.append(replace(row, id=f"{row.id}_{i}", target=said))
    return [out[i] for i in rng.permutation(len(out))]


def some_copies(given: Material, rng: np.random.Generator) -> Material:
    """One row of ten comes twice, as in any set that was collected."""
    again = [replace(row, id=f"{row.id}_b") for row in given.train[: len(given.train) // 10]]
    return Material(given.train + again, given.valid)


def control(name: str, what: str, subject: str, **how: Any) -> Fault:
    """A training that is healthy."""
    return fault(name, what, "", (subject,), **how)


SMALL = {"model.d_model": 32, "model.d_ff": 64, "model.heads": 2, "model.encoder_layers": 1}
LARGE = {"model.d_model": 128, "model.d_ff": 512, "model.encoder_layers": 3, "model.decoder_layers": 2}
TRAINED = {"model.weights": "A TRAINED RUN"}  # of the same subject; see exam.py
GERMANIC = ("da_DK", "de_DE", "en_GB", "en_US", "nb_NO", "nl_NL", "sv_SE")

# Until `evaluate` does not call its outputs failed; a fault shows earlier.
LONGER: dict[str, dict[str, Any]] = {
    name: {"stranger": {"arguments": {"max_steps": 2400}}} for name in ("dates hf t5", "dates hf t5 v1.1")
}

_ALL: tuple[Fault, ...] = (
    *(control(f"as it is: {name}", "the subject itself", name, **LONGER.get(name, {})) for name in SUBJECTS),
    control("small", "a width of 32, one layer", "digits t5", options={**SMALL, "train.steps": 400}),
    control("large", "a width of 128, three layers", "digits decoder", options={**LARGE, "train.learning_rate": 2e-3}),
    control("untied", "a head of its own", "dates t5", options={"model.tied": False}),
    control(
        "gated", "T5 v1.1: gated, untied", "digits t5", options={"model.tied": False, "model.activation": "gated-gelu"}
    ),
    control("early", "half way: the loss still falls", "digits rnn", options={"train.steps": 130}),
    control(
        "smoke run",
        "twenty steps, to see whether it runs",
        "dates decoder",
        options={"train.steps": 20, "train.log_every": 5},
    ),
    control("late", "three times as long as it takes", "digits t5", options={"train.steps": 900}),
    control(
        "two targets",
        "which languages: two targets",
        "dates rnn",
        spoil=aim(lambda row: "germanic" if row.source.startswith(GERMANIC) else "other"),
    ),
    control(
        "ten targets",
        "the first digit alone: ten targets",
        "digits decoder",
        spoil=aim(lambda row: row.target.split()[0]),
        options={"train.steps": 720},
    ),
    control(
        "short targets",
        "the year alone",
        "dates t5",
        spoil=aim(lambda row: row.target[:4]),
        options={"train.steps": 700},
    ),
    control(
        "long sources",
        "two clips end to end",
        "digits rnn",
        spoil=everywhere(doubled),
        options={"train.steps": 640, "data.max_target": 48},
    ),
    control(
        "several replies", "each source with three right targets", "dates decoder", spoil=everywhere(three_replies)
    ),
    control("some copies", "one row of ten comes twice", "dates t5", spoil=some_copies),
    control("large features", "another scale, and standardised", "digits t5", spoil=everywhere(scaled(100))),
    control("bf16", "weights in bf16", "digits decoder", options={"train.precision": "bf16"}),
    control(
        "fixed vector",
        "an LSTM without attention",
        "digits rnn",
        options={"model.cell": "lstm", "model.attention": "none", "train.steps": 600},
    ),
    control("projection", "a linear bridge", "digits t5", options={"model.bridge.kind": "projection"}),
    control(
        "attention bridge",
        "attention pooling",
        "digits decoder",
        options={"model.bridge.kind": "attention", "train.steps": 720},
    ),
    control(
        "perceiver",
        "16 latents",
        "digits decoder",
        options={"model.bridge.kind": "perceiver", "model.bridge.latents": 16, "train.steps": 720},
    ),
    control(
        "smoothed",
        "label smoothing 0.1, dropout 0.1",
        "dates t5",
        options={"train.label_smoothing": 0.1, "model.dropout": 0.1},
    ),
    control(
        "word dropout", "a tenth of the decoder's words withheld", "digits rnn", options={"train.word_dropout": 0.1}
    ),
    control(
        "fine-tuned",
        "from a trained run, at a low rate",
        "digits decoder",
        options={**TRAINED, "train.steps": 80, "train.learning_rate": 3e-4},
    ),
    control(
        "frozen encoder",
        "from a trained run, the encoder kept",
        "digits t5",
        options={**TRAINED, "train.steps": 60, "train.learning_rate": 3e-4, "train.freeze": ["encoder"]},
    ),
)

CONTROLS: dict[str, Fault] = {each.name: each for each in _ALL}
