"""Presets: the published shapes, by their published numbers of parameters."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sourcewise.config import ModelConfig, presets
from sourcewise.config.files import load_recipe, options
from sourcewise.errors import RequestError
from sourcewise.model.families.registry import FAMILIES

# Name → entries of its vocabulary, and parameters as its checkpoint on the hub has them.
PUBLISHED = {
    "t5-small": (32128, 60_506_624),
    "t5-base": (32128, 222_903_552),
    "t5-large": (32128, 737_668_096),
    "t5-3b": (32128, 2_851_598_336),
    "t5-11b": (32128, 11_307_321_344),
    "t5-v1_1-small": (32128, 76_961_152),
    "t5-v1_1-base": (32128, 247_577_856),
    "flan-t5-large": (32128, 783_150_080),
    "flan-t5-xl": (32128, 2_849_757_184),
    "flan-t5-xxl": (32128, 11_135_332_352),
    "mt5-small": (250112, 300_176_768),
    "mt5-base": (250112, 582_401_280),
    "mt5-large": (250112, 1_229_581_312),
    "mt5-xl": (250112, 3_742_619_648),
    "mt5-xxl": (250112, 12_921_057_280),
    "byt5-small": (384, 299_637_760),
    "byt5-base": (384, 581_653_248),
    "bart-base": (50264, 139_420_416 - 768),  # its vocabulary is 50,265; ours a multiple of 8
    "bart-large": (50264, 406_291_456 - 1024),
}
# The papers' own figures, in billions, where no count to the unit is at hand.
ROUGHLY = {"byt5-large": (384, 1.23), "byt5-xl": (384, 3.74), "byt5-xxl": (384, 12.9), "flan-ul2": (32128, 19.5)}


def size(name: str, vocabulary: int) -> int:
    """Parameters of a fresh network; nothing is allocated."""
    model = ModelConfig.model_validate({"preset": name})
    tokenizer: Any = SimpleNamespace(size=vocabulary, pad_id=0, eos_id=1)
    with torch.device("meta"):
        body = FAMILIES[model.family].make(model, tokenizer, False)
    return sum(p.numel() for p in body.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_has_the_published_number_of_parameters(name: str) -> None:
    vocabulary, parameters = PUBLISHED[name]
    assert size(name, vocabulary) == parameters


@pytest.mark.parametrize("name", ROUGHLY)
def test_a_preset_is_about_as_large_as_published(name: str) -> None:
    vocabulary, billions = ROUGHLY[name]
    assert size(name, vocabulary) / 1e9 == pytest.approx(billions, rel=0.01)


@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_preset_is_a_model_section(name: str) -> None:
    model = ModelConfig.model_validate({"preset": name})
    assert {key: getattr(model, key) for key in presets.PRESETS[name]} == presets.PRESETS[name]
    assert ModelConfig.model_validate(model.model_dump()) == model  # as a run's recipe.yaml has it


def test_an_option_beside_a_preset_wins() -> None:
    model = load_recipe(None, {"model.preset": "mt5-small", "model.d_ff": 99, "model.dropout": 0.3}).model
    assert (model.d_model, model.d_ff, model.dropout, model.activation, model.tied) == (
        512,
        99,
        0.3,
        "gated-gelu",
        False,
    )


def test_bart_without_a_preset_has_its_own_activation() -> None:
    assert ModelConfig.model_validate({"family": "bart"}).activation == "gelu"
    assert ModelConfig.model_validate({"family": "bart", "activation": "relu"}).activation == "relu"
    assert ModelConfig.model_validate({}).activation == "relu"


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"model.preset": "t5-smal"}, "model: preset 't5-smal' is unknown; did you mean t5-small?"),
        ({"model.preset": "gpt"}, "model: preset 'gpt' is unknown; known: t5-small … t5-11b"),
        ({"model.preset": "t5-small", "model.weights": "x"}, "weights bring their own; leave one out"),
        ({"model.preset": 3}, "model.preset should be"),
    ],
)
def test_a_wrong_preset_is_named(given: dict[str, Any], line: str) -> None:
    with pytest.raises(RequestError) as caught:
        load_recipe(None, given)
    assert line in str(caught.value)


def test_the_options_tell_of_presets() -> None:
    described = {key: text for key, _, _, text in options()}
    assert "flan-ul2" in described["model.preset"] and "byt5" in described["model.preset"]
