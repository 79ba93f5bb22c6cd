"""Every cure: off, it changes nothing; on, it learns, resumes exactly, and leaves the reported loss alone."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import sourcewise
from sourcewise.api import prepare
from sourcewise.model.weights.checkpoint import find_folder, load_network
from sourcewise.reporting.progress import TrainingProgress
from sourcewise.training.loop import Interrupted
from sourcewise.training.run import Run
from tests.training.recipes import feature_recipe, recipe
from tests.training.test_training import same, weights

CURES: dict[str, dict[str, Any]] = {
    "text noise": {"train__text_noise": {"drop": 0.1, "mask": 0.1, "swap": 0.2}},
    "subword sampling": {"train__subword_sampling": {"alpha": 0.1}},
    "resampling": {"train__resample_below": 0.9},
    "guided attention": {"train__guided_attention": 1.0},
    "attention mass": {"train__attention_mass": 1.0, "model__family": "decoder"},
    "contrastive": {"train__contrastive": 0.5},
    "ctc": {"train__ctc_weight": 0.3},
    "unfreezing": {"train__unfreeze": {"encoder": 0.4, "rate": 0.5}},
    "xavier": {"model__initialization": "xavier"},
}
OF_FEATURES = ("guided attention", "contrastive", "ctc", "unfreezing", "xavier")


def interrupted_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes in that step of the next training."""
    kept = TrainingProgress.stepped

    def stepped(self: TrainingProgress, now: int, line: dict[str, Any] | None) -> None:
        if now == step:
            os.kill(os.getpid(), signal.SIGINT)
        kept(self, now, line)

    monkeypatch.setattr(TrainingProgress, "stepped", stepped)


@pytest.mark.parametrize("name", CURES)
def test_a_training_with_it_resumes_exactly(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = CURES[name] | {"train__steps": 14, "train__evaluate_every": 14, "model__dropout": 0.1}
    make = feature_recipe if name in OF_FEATURES else recipe
    whole = sourcewise.train(make(tmp_path, name="whole", **options))
    plain = sourcewise.train(make(tmp_path, name="plain", **{k: v for k, v in options.items() if k not in CURES[name]}))
    assert not same(weights(whole.folder), weights(plain.folder)), "it did nothing"
    with monkeypatch.context() as patched:
        interrupted_at(9, patched)
        with pytest.raises(Interrupted):
            sourcewise.train(make(tmp_path, name="broken", **options))
    broken = sourcewise.train(tmp_path / "runs" / "broken", resume=True)
    assert same(weights(whole.folder), weights(broken.folder))
    assert find_folder(whole.folder) and load_network(find_folder(whole.folder))  # nothing of the cure is in it


@pytest.mark.parametrize("name", ["guided attention", "contrastive", "ctc"])
def test_the_loss_that_is_reported_is_plain_cross_entropy(name: str, tmp_path: Path) -> None:
    losses = []
    for options in ({}, CURES[name]):
        made = feature_recipe(tmp_path, train__precision="fp32", **options)
        learner = prepare(made, Run(tmp_path / "r")).learner
        learner.learn(learner.plan.batches(0)[:1])
        losses.append(learner.at.nats / learner.at.targets)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_ctc_reads_texts_too(tmp_path: Path) -> None:
    run = sourcewise.train(recipe(tmp_path, train__ctc_weight=0.5, train__steps=40))
    lines = [line["loss"] for line in run.metrics() if line["kind"] == "train"]
    assert all(map(math.isfinite, lines)) and lines[-1] < lines[0]
    saved = weights(run.folder)
    assert not any("ctc" in key for key in saved)


def test_contrast_raises_source_bits_where_the_decoder_leans_on_itself(tmp_path: Path) -> None:
    bits = []
    for weight in (0.0, 1.0):
        options = {"train__contrastive": weight, "train__steps": 60, "train__learning_rate": 3e-3}
        run = sourcewise.train(recipe(tmp_path, name=f"c{weight:.0f}", **options))
        assert run.evaluation is not None
        bits.append(run.evaluation.metrics["source_bits"])
    assert bits[1] > bits[0]


@pytest.mark.parametrize("how", ["xavier", "he", "t5"])
def test_initial_weights_have_the_deviation_of_their_rule(how: str, tmp_path: Path) -> None:
    made = feature_recipe(tmp_path, model__initialization=how, model__d_model=64, model__d_ff=128)
    training = prepare(made, Run(tmp_path / "r"))
    found = dict(training.setup.network.named_parameters())
    wide = found["body.encoder.0.feedforward.wi.weight"]  # (128, 64)
    expected = {"xavier": math.sqrt(2 / (64 + 128)), "he": math.sqrt(2 / 64), "t5": math.sqrt(1 / 64)}[how]
    assert float(wide.detach().float().std()) == pytest.approx(expected, rel=0.05)
    own = prepare(feature_recipe(tmp_path, model__d_model=64, model__d_ff=128), Run(tmp_path / "r"))
    for name, parameter in own.setup.network.named_parameters():
        if name.startswith("body.") and ("embedding" in name or parameter.ndim < 2):
            assert torch.equal(parameter, found[name]), name
