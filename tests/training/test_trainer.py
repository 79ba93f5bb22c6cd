"""The trainer where trainings go wrong: gradients that explode, stops with everything switched on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import sourcewise
from sourcewise.config import Recipe
from sourcewise.errors import RequestError
from sourcewise.training.objective import Objective
from tests.training.recipes import feature_recipe, recipe
from tests.training.stopping import Stops


class _Explode(torch.autograd.Function):
    """The identity, with a gradient of NaN."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        return grads[0] * math.nan


def test_a_gradient_that_explodes_stops_the_training_before_it_reaches_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Objective.forward
    seen: list[int] = []

    def exploding(self: Objective, batch: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        minimised, nats = forward(self, batch, **options)
        seen.append(1)
        return (_Explode.apply(minimised) if len(seen) == 8 else minimised), nats

    monkeypatch.setattr(Objective, "forward", exploding)
    made = recipe(tmp_path, train__evaluate_every=4)
    with pytest.raises(RequestError, match=r"step 8: .*norm of its gradient nan; the last state is kept"):
        sourcewise.train(made)
    folder = tmp_path / "runs" / "tiny"
    weights = load_file(folder / "checkpoints" / "last" / "model.safetensors")
    assert all(bool(w.isfinite().all()) for w in weights.values())
    assert sourcewise.train(folder, resume=True).evaluation is not None  # from step 4, this time without


def everything(folder: Path, name: str) -> Recipe:
    """A mixture, augmentation, a CTC head, sampled inputs, token weights, a frozen part, accumulation, averaging."""
    digits = {"builtin": "digits"}
    return feature_recipe(
        folder,
        name=name,
        data={
            "train": [{**digits, "limit": 60, "weight": 3.0}, {**digits, "limit": 20, "split": "test"}],
            "valid": {**digits, "limit": 10},
            "vocabulary": 64,
        },
        model__dropout=0.2,
        model__attention_dropout=0.1,
        train__augment={"time_masks": 1, "frequency_masks": 1, "frequency_width": 2, "speed": 0.2, "noise": 0.1},
        train__ctc_weight=0.3,
        train__scheduled_sampling="inverse_sigmoid",
        train__word_dropout=0.2,
        train__token_weights="effective_number",
        train__focal=1.0,
        train__freeze=["embedding"],
        train__accumulate=2,
        train__average=2,
        train__steps=12,
        train__evaluate_every=4,
        train__save_every=3,
    )


@pytest.mark.parametrize("stops", [(2, 5), (7, 9, 11)])
def test_stopped_and_resumed_with_everything_switched_on_the_weights_are_the_same(
    tmp_path: Path, stops: tuple[int, ...]
) -> None:
    whole = sourcewise.train(everything(tmp_path, "whole"))
    for stop in stops:
        with pytest.raises(MemoryError):
            torch.manual_seed(99)  # whatever happened before must not matter
            folder = tmp_path / "runs" / "parts"
            made = folder if folder.exists() else everything(tmp_path, "parts")
            sourcewise.train(made, resume=folder.exists(), listeners=[Stops(stop)])
    parts = sourcewise.train(tmp_path / "runs" / "parts", resume=True)
    for file in ("last/model.safetensors", "last/bridge.safetensors", "best/model.safetensors"):
        first, second = (load_file(run.folder / "checkpoints" / file) for run in (whole, parts))
        assert all(torch.equal(first[name], second[name]) for name in first), file


def test_without_a_validation_set_the_last_weights_are_the_best(tmp_path: Path) -> None:
    pairs = tmp_path / "one.tsv"
    pairs.write_text("source\ttarget\nba do\tone two\n")  # one example, fewer batches than a step takes
    data = {"train": {"pairs": str(pairs)}, "vocabulary": 64}
    run = sourcewise.train(recipe(tmp_path, data=data, train__accumulate=4, train__steps=3, train__evaluate_every=2))
    last, best = (load_file(folder / "model.safetensors") for folder in (run.last, run.best))
    assert run.evaluation is None and all(torch.equal(last[name], best[name]) for name in last)


def test_one_example_has_no_source_bits_and_the_log_is_json_all_the_same(tmp_path: Path) -> None:
    pairs = tmp_path / "one.tsv"
    pairs.write_text("source\ttarget\nba do\tone two\n")
    data = {"train": {"pairs": str(pairs)}, "valid": {"pairs": str(pairs)}, "vocabulary": 64}
    run = sourcewise.train(recipe(tmp_path, data=data, train__steps=2, train__best="source_bits"))
    assert "NaN" not in (run.folder / "metrics.jsonl").read_text()
    assert run.metrics()[-1]["source_bits_ci95"] == [None, None]
