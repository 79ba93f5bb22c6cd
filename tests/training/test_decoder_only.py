"""Trainings of the decoder-only stack: ten steps and what follows them, killed ones, and one that learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import sourcewise
from sourcewise.config import Recipe
from sourcewise.model.families.decoder_only import size
from sourcewise.model.network import Seq2Seq
from tests.training.recipes import feature_recipe, recipe
from tests.training.stopping import Stops


def tiny(made: Recipe, **model: Any) -> Recipe:
    """The decoder-only sibling of a tiny recipe."""
    changes = {"family": "decoder", "same_size": True, "prefix": "full", **model}
    return made.model_copy(update={"model": made.model.model_copy(update=changes)})


@pytest.mark.parametrize("prefix", ["causal", "full"])
@pytest.mark.parametrize("make", [recipe, feature_recipe])
def test_ten_steps_and_everything_after_them(make: Any, prefix: str, tmp_path: Path) -> None:
    made = make(tmp_path, train__steps=10, train__evaluate_every=10, train__log_every=1, train__learning_rate=3e-3)
    run = sourcewise.train(tiny(made, prefix=prefix, dropout=0.1))
    losses = [line["loss"] for line in run.metrics() if line["kind"] == "train"]
    assert len(losses) == 10 and losses[-1] < 0.8 * losses[0]
    assert run.evaluation is not None and run.evaluation.metrics["source_bits"] is not None
    model = sourcewise.load(run.folder)
    assert isinstance(model.network, Seq2Seq) and run.parameters == size(model.network)
    data = str(tmp_path / "valid.tsv") if make is recipe else "digits"
    for options in ({"beams": 1}, {"beams": 3}, {"beams": 1, "sample": True}):
        found = sourcewise.evaluate(model, data, generation={**options, "max_new_tokens": 6})
        assert found.metrics["examples"] == len(found.outputs) > 0
    findings = sourcewise.diagnose(model, data)
    assert findings  # after ten steps it is ill, and says so


def test_it_learns_to_read_its_source(tmp_path: Path) -> None:
    wider = {"d_model": 64, "d_ff": 128, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0}
    options = {"train__learning_rate": 3e-3, "train__batch_tokens": 1024, "train__evaluate_every": 250}
    run = sourcewise.train(tiny(recipe(tmp_path, model=wider, train__steps=250, **options)))
    assert run.evaluation is not None
    assert run.evaluation.metrics["exact_match_pct"] >= 60
    assert run.evaluation.metrics["source_bits"] > 3


class Killed(BaseException):
    """A kill, for the test."""


def test_killed_and_resumed_the_weights_are_the_same(tmp_path: Path) -> None:
    options = {"train__steps": 10, "train__save_every": 3, "train__evaluate_every": 5, "model__dropout": 0.1}
    whole = sourcewise.train(tiny(recipe(tmp_path, name="whole", **options)))
    with pytest.raises(Killed):
        sourcewise.train(tiny(recipe(tmp_path, name="killed", **options)), listeners=[Stops(7, Killed())])
    run = sourcewise.train(tmp_path / "runs" / "killed", resume=True)
    files = [folder / "checkpoints" / "last" / "model.safetensors" for folder in (whole.folder, run.folder)]
    assert files[0].read_bytes() == files[1].read_bytes()
