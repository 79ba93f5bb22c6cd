"""The rules over a first step: what will not learn is found, and what need not learn is left alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from sourcewise.diagnosis.rules.wiring.wir014_learning_rate_too_high_or_low import LearningRateTooHighOrLow
from sourcewise.model.blocks import recurrent_layers
from sourcewise.training import optimizer
from tests.diagnosis.test_wiring import DIGITS, codes, prepared, wiring_findings


def detach_encoder(network: Any) -> None:
    usual = network.body.run_encoder

    def run_encoder(vectors: torch.Tensor, layout: Any) -> Any:
        layout, states = usual(vectors, layout)
        return layout, states.detach()

    network.body.run_encoder = run_encoder


def detach_bridge(network: Any) -> None:
    usual = network.bridge.forward

    def forward(features: torch.Tensor, frames: torch.Tensor) -> Any:
        found, counts = usual(features, frames)
        return found.detach(), counts

    network.bridge.forward = forward


def freeze_all(network: Any) -> None:
    network.requires_grad_(False)


def freeze_encoder(network: Any) -> None:
    network.body.encoder.requires_grad_(False)


def nothing(network: Any) -> None:
    """The fault is in the recipe."""


@pytest.mark.parametrize(
    ("code", "plant", "changes"),
    [
        ("WIR012", detach_encoder, {}),
        ("WIR012", detach_encoder, DIGITS | {"model__family": "bart"}),
        ("WIR012", detach_bridge, DIGITS),
        ("WIR003", freeze_all, {}),
        ("WIR003", freeze_encoder, DIGITS),
        ("WIR003", nothing, {"train__freeze": ["decoder"]}),
        ("WIR003", nothing, {"train__freeze": ["encoder", "embedding", "decoder"]}),
        ("WIR014", nothing, {"train__learning_rate": 0.0}),
        ("WIR014", nothing, {"train__learning_rate": 1e-6}),
        ("WIR014", nothing, {"train__warmup_steps": 2000}),
        ("WIR014", nothing, {"train__learning_rate": 1.0}),
        ("WIR014", nothing, {"train__learning_rate": 1.0, "model__family": "rnn"}),
        ("WIR014", nothing, {"train__weight_decay": 100.0}),
    ],
)
def test_what_will_not_learn_is_found(code: str, plant: Any, changes: dict[str, Any]) -> None:
    training = prepared(**changes)
    plant(training.network)
    assert codes(training)[:1] == [code]


@pytest.mark.parametrize(
    ("rate", "weight_decay", "level", "said"),
    [
        (3e-3, 0.1, None, ""),
        (1e-2, 2.0, "warning", "takes 0.02 of the weights in a step: after 35 steps half"),
        (3e-3, 100.0, "error", "after 2 steps half"),
        (1.0, 1.0, "error", "after 1 step half"),
    ],
)
def test_a_decay_that_takes_more_than_is_learned(rate: float, weight_decay: float, level: str, said: str) -> None:
    findings = list(LearningRateTooHighOrLow().of_decay(rate, weight_decay))
    assert [f.level for f in findings] == ([level] if level else [])
    assert all(said in f.evidence for f in findings)


@pytest.mark.parametrize("changes", [{"train__learning_rate": 1e-5}, {"train__warmup_steps": 2000}])
def test_a_trial_of_a_few_steps_need_not_get_anywhere(changes: dict[str, Any]) -> None:
    assert codes(prepared(**changes)) == ["WIR014"]
    assert codes(prepared(**changes, train__steps=20)) == []


def test_a_frozen_pretrained_decoder_is_no_finding() -> None:
    """Only with a new bridge before it: that is how features are put to a language model."""
    training = prepared(**DIGITS, train__freeze=["decoder"])
    model = training.recipe.model.model_copy(update={"weights": "somewhere"})
    assert codes(replace(training, recipe=training.recipe.model_copy(update={"model": model}))) == []


def test_a_frozen_feature_encoder_is_no_finding_where_it_was_lent() -> None:
    training = prepared(**DIGITS, model__feature_encoder={"layers": 1, "width": 16}, train__freeze=["features"])
    assert codes(training) == ["WIR003"]
    encoder = training.recipe.model.feature_encoder.model_copy(update={"weights": "somewhere"})
    model = training.recipe.model.model_copy(update={"feature_encoder": encoder})
    assert codes(replace(training, recipe=training.recipe.model_copy(update={"model": model}))) == []


def test_weights_that_the_optimizer_lacks_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = optimizer.MasterAdamW.__init__

    def forgetful(self: Any, module: Any, *args: Any) -> None:
        forgotten = [p for name, p in module.named_parameters() if ".encoder." in name]
        for parameter in forgotten:
            parameter.requires_grad_(False)
        usual(self, module, *args)
        for parameter in forgotten:
            parameter.requires_grad_(True)

    monkeypatch.setattr(optimizer.MasterAdamW, "__init__", forgetful)
    (found,) = wiring_findings(prepared())
    assert found.code == "WIR003" and "encoder" in found.evidence and "optimizer" in found.evidence


@pytest.mark.parametrize("layers", [2, 30])
def test_a_deep_stack_of_sigmoids_loses_its_gradient(layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """30 layers vanish, 2 of the same do not."""
    usual = recurrent_layers.EncoderLayer.forward
    monkeypatch.setattr(recurrent_layers.EncoderLayer, "forward", lambda *given: torch.sigmoid(usual(*given)))
    training = prepared(model__family="rnn", model__encoder_layers=layers)
    assert codes(training)[:1] == (["WIR013"] if layers == 30 else [])
