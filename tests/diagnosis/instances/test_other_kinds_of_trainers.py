"""Kinds that others planted and no rule knew, in a `Seq2SeqTrainer`: three instances of each, and healthy twins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import EarlyStoppingCallback

from sourcewise.integrations.transformers import SourcewiseCallback
from tests.diagnosis.instances.test_layout_of_trainers import as_it_is, found, run
from tests.integrations import trainings
from tests.integrations.trainings import PAD, Row

Batch = dict[str, Tensor]
BEST: dict[str, Any] = {
    "load_best_model_at_end": True,
    "save_strategy": "steps",
    "save_steps": 6,
    "save_total_limit": 1,
}


def codes(callback: SourcewiseCallback) -> dict[str, str]:
    return dict(found(callback))


def of(folder: Path, model: Any, steps: int, rows: list[Row], **options: Any) -> SourcewiseCallback:
    """A training of these rows."""
    made = trainings.trainer(folder, model, steps, rows, **options)
    callback = SourcewiseCallback(made)
    made.add_callback(callback)
    made.train()
    return callback


# ── which checkpoint is kept ──────────────────────────────────────────────────────────────────────────────────────────


def began(folder: Path, options: dict[str, Any], *, stops: bool = False) -> dict[str, str]:
    """What is found at the beginning of a training whose metric is made by compute_metrics."""
    made = trainings.trainer(folder, trainings.t5(), 6, **options)
    made.compute_metrics = lambda predictions: {"wer": 0.5, "bleu": 3.0, "f1": 0.1}
    if stops:
        made.add_callback(EarlyStoppingCallback(2))
    callback = SourcewiseCallback(made)
    made.add_callback(callback)
    made.train()
    return codes(callback)


@pytest.mark.parametrize(
    ("options", "stops", "level"),
    [
        (BEST | {"metric_for_best_model": "wer"}, False, "error"),  # the higher, unless it is said
        (BEST | {"metric_for_best_model": "eval_bleu", "greater_is_better": False}, False, "error"),
        (BEST | {"metric_for_best_model": "loss", "greater_is_better": True}, True, "error"),
        (BEST | {"metric_for_best_model": "wer", "greater_is_better": False}, False, None),
        (BEST, True, None),
        (BEST | {"metric_for_best_model": "f1"}, False, None),
        ({"metric_for_best_model": "wer"}, False, None),  # nothing is kept by it
    ],
)
def test_the_worst_checkpoint(options: Any, stops: bool, level: str | None, tmp_path: Path) -> None:
    assert began(tmp_path, options, stops=stops).get("TRN016") == level


# ── the rate, and the order of the batches ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "level"),
    [
        ({"warmup_steps": 600}, "error"),
        ({"warmup_steps": 400, "lr_scheduler_type": "cosine"}, "error"),
        ({"warmup_steps": 30, "lr_scheduler_type": "constant_with_warmup"}, "warning"),
        ({"warmup_steps": 2}, None),
        ({"lr_scheduler_type": "cosine"}, None),
        ({"lr_scheduler_type": "inverse_sqrt", "warmup_steps": 3}, None),
    ],
)
def test_a_rate_that_never_comes_to_its_peak(options: Any, level: str | None, tmp_path: Path) -> None:
    assert codes(run(tmp_path, trainings.t5(), as_it_is, as_it_is, **options)).get("WIR041") == level


def by_length(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: len(row["input_ids"]))


def by_letter(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row["input_ids"][0])


def by_file(rows: list[Row]) -> list[Row]:
    """Three files, each with letters of its own."""
    return [row for k in range(3) for row in rows if max(row["input_ids"]) % 3 == k]


@pytest.mark.parametrize("order", [by_length, by_letter, by_file, lambda rows: rows])
def test_data_that_is_never_shuffled(order: Callable[[list[Row]], list[Row]], tmp_path: Path) -> None:
    rows = order(trainings.rows(960))
    options = {"train_sampling_strategy": "sequential", "per_device_train_batch_size": 16}
    made = codes(of(tmp_path, trainings.t5(), 64, rows, **options))
    assert made.get("DAT027") == (None if order.__name__ == "<lambda>" else "warning")


@pytest.mark.parametrize("count", [1, 2, 3, 38])
def test_the_same_batches(count: int, tmp_path: Path) -> None:
    rows = trainings.rows(16 * count)
    options = {"train_sampling_strategy": "sequential", "per_device_train_batch_size": 16}
    made = codes(of(tmp_path, trainings.t5(), 42, rows, **options))
    assert made.get("DAT028") == ("warning" if count < 38 else None)


# ── what is hidden and what is never said ─────────────────────────────────────────────────────────────────────────────


def as_padding(word: int, mask: bool = True) -> Callable[[Batch], Batch]:
    """A word has the id of padding, as the collator masks it."""

    def change(batch: Batch) -> Batch:
        ids = batch["input_ids"].masked_fill(batch["input_ids"] == word, PAD)
        labels = batch["labels"].masked_fill(batch["labels"] == word, -100)
        return {"input_ids": ids, "labels": labels} | ({"attention_mask": (ids != PAD).long()} if mask else {})

    return change


@pytest.mark.parametrize(("model", "word"), [(trainings.t5, 7), (trainings.bart, 9), (trainings.bart, 12)])
def test_a_word_with_the_number_of_padding(model: Any, word: int, tmp_path: Path) -> None:
    made = run(tmp_path, model(), as_padding(word), as_it_is, steps=36)
    assert made.diagnosis.findings and codes(made)["WIR039"] == "error"


def settings(model: Any, **given: Any) -> Any:
    made = model()
    made.generation_config.update(forced_eos_token_id=None, **given)
    return made


@pytest.mark.parametrize(
    ("model", "given", "level"),
    [
        (trainings.t5, {"bad_words_ids": [[5], [6]]}, "error"),
        (trainings.t5, {"suppress_tokens": [7, 8, 9]}, "error"),
        (trainings.bart, {"suppress_tokens": [12]}, "error"),
        (trainings.bart, {"bad_words_ids": [[PAD]], "suppress_tokens": [14]}, "error"),
        (trainings.t5, {}, None),
    ],
)
def test_words_that_may_not_be_said(model: Any, given: Any, level: str | None, tmp_path: Path) -> None:
    made = run(tmp_path, settings(model, **given), as_it_is, as_it_is)
    assert codes(made).get("OUT018") == level
    assert level is None or found(made)[0][0] == "OUT018"


# ── labels that are the sources ───────────────────────────────────────────────────────────────────────────────────────


def wide(count: int, *, copies: bool) -> list[Row]:
    """Words of 90 tokens, said as they are or two further on."""
    draw = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(count):
        word = torch.randint(4, 94, (int(torch.randint(3, 7, (1,), generator=draw)),), generator=draw).tolist()
        rows.append({"input_ids": [*word, 1], "labels": [*(word if copies else [(i - 2) % 90 + 4 for i in word]), 1]})
    return rows


def larger(model: Any) -> Any:
    made = model()
    made.resize_token_embeddings(100)
    return made


@pytest.mark.parametrize(
    ("model", "copies", "level"),
    [(trainings.t5, True, "warning"), (trainings.bart, True, "warning"), (trainings.t5, False, None)],
)
def test_labels_that_are_the_sources(model: Any, copies: bool, level: str | None, tmp_path: Path) -> None:
    made = of(tmp_path, larger(model), 8, wide(256, copies=copies), valid=wide(64, copies=copies))
    assert codes(made).get("DAT016") == level


# ── norms, and rows in other places ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [0.3, 1.0, 3.0])
def test_positions_along_the_batch(size: float, tmp_path: Path) -> None:
    model = trainings.bart()
    norm = model.model.encoder.layernorm_embedding  # of what is embedded (batch, time, dims)
    plain = norm.forward
    norm.forward = lambda x: plain(x + size * torch.arange(len(x))[:, None, None].sin() * x.abs())
    assert found(run(tmp_path, model, as_it_is, as_it_is))[0][0] == "WIR037"


# ── labels that the collator makes, and figures behind the true tokens ────────────────────────────────────────────────


def causal(rows: list[Row]) -> Batch:
    """As collators of causal models make labels: of the source."""
    batch = trainings.collate(rows)
    return batch | {"labels": batch["input_ids"].masked_fill(batch["input_ids"] == PAD, -100)}


def padded(rows: list[Row]) -> Batch:
    """The same, all rows padded to one width first."""
    wide = trainings.collate([*rows, {"input_ids": [4] * 9, "labels": [4, 1]}])["input_ids"][:-1]
    labels = torch.where(wide == PAD, -100, wide)
    return {"input_ids": wide, "attention_mask": (wide != PAD).long(), "labels": labels}


@pytest.mark.parametrize(
    ("model", "collator"), [(trainings.t5, causal), (trainings.bart, causal), (trainings.t5, padded)]
)
def test_labels_that_a_collator_overwrites(model: Any, collator: Any, tmp_path: Path) -> None:
    made = trainings.trainer(tmp_path, model(), 24, collator=collator)
    callback = SourcewiseCallback(made)
    made.add_callback(callback)
    made.train()
    assert found(callback)[0] == ("DAT016", "error")


def test_letters_that_are_to_be_copied(tmp_path: Path) -> None:
    """The data set's own labels are its sources, a common exercise."""
    rows = [row | {"labels": row["input_ids"]} for row in trainings.rows(600)]
    assert "DAT016" not in codes(of(tmp_path, trainings.t5(), 24, rows, valid=rows[:64]))


@pytest.mark.parametrize(
    ("figures", "options", "level"),
    [
        ({"bleu": 20.0}, {}, "warning"),
        ({"wer": 0.2, "gen_len": 4.0}, {}, "warning"),
        ({"rougeL": 0.2}, {"predict_with_generate": True}, None),
        ({"token_accuracy": 0.9}, {}, None),
    ],
)
def test_figures_of_texts_that_the_references_led(figures: Any, options: Any, level: Any, tmp_path: Path) -> None:
    made = trainings.trainer(tmp_path, trainings.t5(), 12, **options)
    made.compute_metrics = lambda predictions: dict(figures)
    callback = SourcewiseCallback(made)
    made.add_callback(callback)
    made.train()
    assert codes(callback).get("OUT020") == level


@pytest.mark.parametrize(
    ("given", "level"),
    [
        ({"no_repeat_ngram_size": 1}, "error"),
        ({"encoder_no_repeat_ngram_size": 1}, "warning"),
        ({"no_repeat_ngram_size": 3}, None),
        ({"repetition_penalty": 1.2}, None),
    ],
)
def test_searches_that_bar_what_references_repeat(given: Any, level: Any, tmp_path: Path) -> None:
    rows = [row | {"labels": [*row["labels"][:-1], row["labels"][0], 1]} for row in trainings.rows(400)]
    made = of(tmp_path, settings(trainings.t5, **given), 6, rows, valid=rows[:64])
    said = codes(made).get("OUT014")
    assert (said is not None) == (level is not None), said


@pytest.mark.parametrize(("dtype", "rate"), [(torch.bfloat16, 1e-5), (torch.float32, 1e-5), (torch.bfloat16, 4e-3)])
def test_updates_that_are_rounded_away(dtype: Any, rate: float, tmp_path: Path) -> None:
    made = codes(of(tmp_path, trainings.t5().to(dtype), 12, trainings.rows(400), learning_rate=rate))
    assert ("WIR047" in made) == (dtype == torch.bfloat16 and rate < 1e-4)
