"""WIR031: adapters in the decoder alone, or at a rate for whole models; what is frozen beside them is no fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sourcewise.diagnosis.measures.first_step import Weight
from sourcewise.diagnosis.preflight import before_training
from sourcewise.diagnosis.rules.wiring.wir031_adapters_too_few_or_slow import is_meant
from sourcewise.training.setup import set_up
from tests.model.families.zoo import task
from tests.training.test_huggingface import folder_of, recipe

pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")


def found(folder: Path, kind: str, lora: dict[str, Any], rate: float, reads: str = "text") -> dict[str, str]:
    """Code → evidence of what is found before a training with adapters."""
    folder_of(kind, folder)
    asked = recipe(folder, {"train": task(folder, reads)}, {"lora": {"rank": 2, **lora}, "learning_rate": rate})
    return {each.code: each.evidence for each in before_training(set_up(asked)).findings}


@pytest.mark.parametrize("kind", ["t5", "m2m_100"])
def test_adapters_in_both_parts_are_healthy_and_frozen_weights_no_fault(kind: str, tmp_path: Path) -> None:
    codes = found(tmp_path, kind, {}, 1e-3)
    assert not {"WIR031", "WIR003", "WIR012"} & codes.keys(), codes


@pytest.mark.parametrize(("kind", "pattern"), [("t5", r"decoder.*\.(q|v)"), ("m2m_100", r".*decoder.*\.v_proj")])
def test_adapters_of_the_decoder_alone_are_named(kind: str, pattern: str, tmp_path: Path) -> None:
    evidence = found(tmp_path, kind, {"targets": [pattern]}, 1e-3)["WIR031"]
    assert evidence.startswith("the decoder has adapters (decoder (") and evidence.endswith("the encoder has none")


def test_a_rate_for_whole_models_is_named(tmp_path: Path) -> None:
    assert (
        found(tmp_path, "bart", {"targets": ["v_proj"]}, 2e-5)["WIR031"]
        == "the peak rate is 2e-05, that of a whole model"
    )


def test_a_bridge_before_adapters_is_healthy(tmp_path: Path) -> None:
    codes = found(tmp_path, "t5", {"targets": ["q", "v"]}, 1e-3, "sounds")
    assert not {"WIR031", "WIR003", "WIR012"} & codes.keys(), codes


def weight(name: str, part: str) -> Weight:
    return Weight(name, 16, 1.0, learns=True, frozen=False, part=part, matrix=True)


@pytest.mark.parametrize(
    ("encoder", "adapted", "part", "meant"),
    [
        ("encoder.0.attention.q.weight", "decoder.0.attention.q.lora_A.default.weight", "embedding", True),
        ("encoder.layer.0.query.weight", "decoder.h.0.c_attn.lora_A.default.weight", "embedding", False),
        ("encoder.0.attention.q.weight", "decoder.0.attention.q.lora_A.default.weight", "bridge", False),
    ],
)
def test_adapters_that_are_meant_for_the_decoder(encoder: str, adapted: str, part: str, meant: bool) -> None:
    """A list of names would have taken the encoder's layers of these names, too; one of two kinds of networks takes
    what it finds, and a new bridge is read by the encoder as it was."""
    adapters = [weight(adapted, "decoder")]
    assert is_meant(adapters, [*adapters, weight(encoder, "encoder"), weight("shared.weight", part)]) is meant
