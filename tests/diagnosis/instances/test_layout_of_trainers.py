"""Masks and padding in a Trainer: of the training, of the evaluation alone, and on the other side than in training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sourcewise.integrations.transformers import SourcewiseCallback
from tests.integrations import trainings
from tests.integrations.trainings import PAD, Row

Batch = dict[str, Tensor]
VALID = [tuple(row["input_ids"]) for row in trainings.rows(64, seed=1)]


def is_of_evaluation(rows: list[Row]) -> bool:
    return len(rows) == 32 and tuple(rows[0]["input_ids"]) in VALID and tuple(rows[1]["input_ids"]) in VALID


def run(folder: Path, model: Any, train: Any, evaluation: Any, **options: Any) -> SourcewiseCallback:
    """A training whose batches of either kind are changed by a function behind its collator."""

    def collate(rows: list[Row]) -> Batch:
        wide = trainings.collate([*rows, {"input_ids": [4] * 9, "labels": [4, 1]}])
        batch = {name: table[:-1] for name, table in wide.items()}
        return (evaluation if is_of_evaluation(rows) else train)(batch)  # type: ignore[no-any-return]

    made = trainings.trainer(folder, model, options.pop("steps", 6), collator=collate, **options)
    callback = SourcewiseCallback(made)
    made.add_callback(callback)
    made.train()
    return callback


def found(callback: SourcewiseCallback) -> list[tuple[str, str]]:
    return [(each.code, each.level) for each in callback.diagnosis.findings if each.level != "note"]


def as_it_is(batch: Batch) -> Batch:
    return batch


def dropped(batch: Batch) -> Batch:
    return {name: table for name, table in batch.items() if name != "attention_mask"}


def of_ones(batch: Batch) -> Batch:
    return batch | {"attention_mask": torch.ones_like(batch["input_ids"])}


def inverted(batch: Batch) -> Batch:
    return batch | {"attention_mask": 1 - batch["attention_mask"]}


def of_the_first(batch: Batch) -> Batch:
    """One mask for all rows, which is that of the first."""
    return batch | {"attention_mask": batch["attention_mask"][:1].expand_as(batch["input_ids"]).contiguous()}


def on_the_left(batch: Batch) -> Batch:
    lengths = batch["attention_mask"].sum(1)
    turned = {name: batch[name].clone() for name in ("input_ids", "attention_mask")}
    for name, table in turned.items():
        for row, length in enumerate(lengths.tolist()):
            table[row] = batch[name][row].roll(table.shape[1] - length)
    return batch | turned


@pytest.mark.parametrize("model", [trainings.t5, trainings.bart])
@pytest.mark.parametrize("change", [dropped, of_ones, inverted, of_the_first])
@pytest.mark.parametrize("where", ["training", "evaluation"])
def test_a_mask_that_is_not_that_of_the_padding(
    model: Callable[[], Any], change: Any, where: str, tmp_path: Path
) -> None:
    sides = (change, as_it_is) if where == "training" else (as_it_is, change)
    callback = run(tmp_path, model(), *sides)
    assert found(callback)[0] == ("WIR005", "error")
    assert ("of the evaluation" in callback.diagnosis.findings[0].evidence) == (where == "evaluation")


@pytest.mark.parametrize(("train", "evaluation"), [(as_it_is, on_the_left), (on_the_left, as_it_is)])
def test_padded_on_the_other_side(train: Any, evaluation: Any, tmp_path: Path) -> None:
    callback = run(tmp_path, trainings.bart(), train, evaluation)
    assert found(callback) == [("WIR033", "error")]
    side = "left" if evaluation is on_the_left else "right"
    assert f"padded on the {side}" in callback.diagnosis.findings[0].evidence


@pytest.mark.parametrize(
    ("model", "train", "evaluation"),
    [
        (trainings.bart, as_it_is, as_it_is),
        (trainings.bart, on_the_left, on_the_left),  # the same on both
        (trainings.t5, as_it_is, on_the_left),  # relative positions
        (trainings.t5, on_the_left, as_it_is),
    ],
)
def test_padding_that_does_no_harm(model: Any, train: Any, evaluation: Any, tmp_path: Path) -> None:
    assert found(run(tmp_path, model(), train, evaluation)) == []


def test_labels_on_the_left_too(tmp_path: Path) -> None:
    """As a collator pads them whose tokenizer pads on the left."""

    def both(batch: Batch) -> Batch:
        labels, kept = batch["labels"], (batch["labels"] != -100).sum(1).tolist()
        rolled = torch.stack([row.roll(len(row) - n) for row, n in zip(labels, kept, strict=True)])
        return on_the_left(batch) | {"labels": rolled}

    assert found(run(tmp_path, trainings.bart(), as_it_is, both))[0] == ("WIR033", "error")
    assert PAD == 0
