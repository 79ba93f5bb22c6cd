"""Trainings of the recurrent ancestors: ten steps and what follows them, interrupted ones, and one that learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import sourcewise
from sourcewise.config import Recipe
from sourcewise.model.weights.checkpoint import load_network
from tests.training.recipes import feature_recipe, recipe
from tests.training.stopping import Stops


def tiny(made: Recipe, **model: Any) -> Recipe:
    """The recurrent sibling of a tiny recipe."""
    return made.model_copy(update={"model": made.model.model_copy(update={"family": "rnn", **model})})


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("attention", ["bahdanau", "none"])
@pytest.mark.parametrize("make", [recipe, feature_recipe])
def test_ten_steps_and_everything_after_them(make: Any, attention: str, cell: str, tmp_path: Path) -> None:
    made = make(tmp_path, train__steps=10, train__evaluate_every=5, train__log_every=1, train__learning_rate=3e-3)
    made = made.model_copy(update={"train": made.train.model_copy(update={"average": 2})})
    run = sourcewise.train(tiny(made, attention=attention, cell=cell, dropout=0.1))
    losses = [line["loss"] for line in run.metrics() if line["kind"] == "train"]
    assert len(losses) == 10 and losses[-1] < 0.9 * losses[0]
    assert run.evaluation is not None and run.evaluation.metrics["source_bits"] is not None
    model = sourcewise.load(run.folder)
    if make is feature_recipe:
        return
    for options in ({"beams": 1}, {"beams": 3}, {"beams": 1, "sample": True}):
        found = sourcewise.evaluate(model, str(tmp_path / "valid.tsv"), generation=options)
        assert found.metrics["examples"] == len(found.outputs) == 24
    assert (sourcewise.trace(model, "ba do", max_new_tokens=6).attention is None) == (attention == "none")
    assert sourcewise.diagnose(model, str(tmp_path / "valid.tsv"))  # after ten steps it is ill, and says so


@pytest.mark.parametrize("attention", ["bahdanau", "none"])
def test_a_run_that_was_interrupted_goes_on_as_if_it_had_not(attention: str, tmp_path: Path) -> None:
    made = tiny(recipe(tmp_path, train__steps=12, train__evaluate_every=4), attention=attention, dropout=0.2)
    whole = sourcewise.train(made)
    with pytest.raises(KeyboardInterrupt):
        sourcewise.train(made.model_copy(update={"name": "stopped"}), listeners=[Stops(6, KeyboardInterrupt())])
    resumed = sourcewise.train(tmp_path / "runs" / "stopped", resume=True)
    for checkpoint in ("last", "best"):
        one, other = (load_network(run.folder / "checkpoints" / checkpoint) for run in (whole, resumed))
        for a, b in zip(one.parameters(), other.parameters(), strict=True):  # type: ignore[attr-defined]
            assert torch.equal(a, b)


def test_it_learns_to_read_its_source(tmp_path: Path) -> None:
    options = {"train__learning_rate": 5e-3, "train__batch_tokens": 1024, "train__evaluate_every": 250}
    made = recipe(tmp_path, train__steps=250, data__unit="words", **options)
    model = {"d_model": 64, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0}
    run = sourcewise.train(tiny(made, **model))
    assert run.evaluation is not None
    assert run.evaluation.metrics["exact_match_pct"] >= 90 and run.evaluation.metrics["source_bits"] > 1
