"""Bases in 8 and 4 bits: what is asked of bitsandbytes, what is refused, and, where it is installed, trainings.

bitsandbytes computes on a CPU, too, slowly; there the rule that takes CUDA alone is taken away.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import nn

import sourcewise
from sourcewise.config import Recipe
from sourcewise.errors import NotFinite, RequestError
from sourcewise.generation.model import load
from sourcewise.model import quantised
from sourcewise.model.families.huggingface import HuggingFaceNetwork
from sourcewise.model.lora import adapt
from sourcewise.model.parts import size
from sourcewise.model.quantised import Quantised, asked_quantised
from sourcewise.model.weights.checkpoint import load_network
from sourcewise.training.setup import set_up
from tests.model.families.zoo import task
from tests.training.test_huggingface import folder_of, recipe
from tests.training.test_lora import TARGETS, logits, theirs, trained

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")
THERE = importlib.util.find_spec("bitsandbytes") is not None
REAL = pytest.mark.skipif(not THERE, reason="bitsandbytes is not installed: pip install '.[quantized]'")
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
LORA = {"rank": 2}


def refused(asked: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as found:
        Recipe.model_validate(asked)
    return str(found.value)


def test_what_cannot_be_had_is_refused_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = {"weights": "t5-small", "quantization": "4bit"}
    lora = {"train": {"lora": LORA}}
    assert "model.quantization 4bit: such weights cannot learn themselves; set train.lora.rank" in refused(
        {"model": model}
    )
    assert "quantization 8bit is of pretrained weights; name them in weights" in refused(
        {"model": {"quantization": "8bit"}, **lora}
    )
    assert "'none', '8bit' or '4bit'" in refused({"model": {**model, "quantization": "3bit"}, **lora})
    folder = folder_of("t5", tmp_path)
    asked = recipe(folder, {"train": task(folder, "text")}, {"lora": LORA}, quantization="4bit")
    with pytest.raises(RequestError, match=r"model\.quantization: 4bit: .* on CUDA alone, here is cpu; leave it out"):
        set_up(asked)
    monkeypatch.setattr(quantised, "_computes", lambda device: True)
    monkeypatch.setattr(quantised, "PACKAGE", "no_such_package")
    with pytest.raises(RequestError, match=r"model\.quantization: 4bit: .*pip install 'sourcewise\[quantized\]'"):
        set_up(asked)


def test_nothing_is_quantised_unless_it_is_asked_for() -> None:
    assert asked_quantised("none", CPU, torch.float32) is None


SETTINGS = {
    "8bit": {"load_in_8bit": True, "load_in_4bit": False},
    "4bit": {
        "load_in_4bit": True,
        "load_in_8bit": False,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": torch.bfloat16,
    },
}


class Linear4bit(nn.Linear):
    """Of the name of bitsandbytes' class."""


Linear8bitLt = type("Linear8bitLt", (nn.Linear,), {})


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("name", ["t5", "bart", "m2m_100"])
def test_transformers_is_asked_for_what_peft_documents(
    kind: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CUDA device as a stand-in of `from_pretrained` sees it, also of the types that are networks of ours."""
    folder = folder_of(name, tmp_path) / "model"
    config = transformers.AutoConfig.from_pretrained(folder)
    made = transformers.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING[type(config)]
    own, seen = made.from_pretrained.__func__, []

    def stands_in(cls: Any, *places: Any, quantization_config: Any, device_map: Any, **others: Any) -> Any:
        seen.append((quantization_config, device_map, others["dtype"]))
        model, found = own(cls, *places, **others)
        for module in model.modules():
            if isinstance(module, nn.Linear) and module is not model.get_output_embeddings():
                module.__class__ = Linear4bit if kind == "4bit" else Linear8bitLt
        return model, found

    monkeypatch.setattr(made, "from_pretrained", classmethod(stands_in))
    packed = Quantised(kind, CUDA)
    network = load_network(folder, packed)
    assert isinstance(network, HuggingFaceNetwork)
    [(settings, place, dtype)] = seen
    assert {key: getattr(settings, key) for key in SETTINGS[kind]} == SETTINGS[kind]
    assert (place, dtype) == ({"": "cuda:0"}, torch.float32)  # all else is in fp32, as prepare_model_for_kbit_training
    assert re.match(r"[23]\d linear layers of the base are in [48] bits", packed.note(network))
    adapt(network, Recipe.model_validate({"train": {"lora": LORA}}).train.lora, str(folder))
    assert all(p.requires_grad == (".lora_" in n) for n, p in network.named_parameters())


def test_a_model_without_linear_layers_is_refused() -> None:
    with pytest.raises(RequestError, match=r"model\.quantization: 4bit: this model has no linear layer"):
        Quantised("4bit", CPU).note(nn.Embedding(3, 4))


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """bitsandbytes on this machine, without its packing for AVX-512, which is for wide layers and drops the old."""
    modules = importlib.import_module("bitsandbytes.nn.modules") if THERE else None
    monkeypatch.setattr(modules, "has_avx512bf16", lambda: False, raising=False)
    monkeypatch.setattr(quantised, "_computes", lambda device: True)


def quantised_by_transformers(folder: Path, kind: str) -> Any:
    settings = {**SETTINGS[kind]}
    if kind == "4bit":
        settings["bnb_4bit_compute_dtype"] = torch.float32
    packed = transformers.BitsAndBytesConfig(**settings)
    return transformers.AutoModelForSeq2SeqLM.from_pretrained(
        folder, quantization_config=packed, dtype=torch.float32
    ).eval()


@REAL
@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("name", ["t5", "bart", "m2m_100"])
def test_adapters_learn_beside_the_base_that_transformers_quantises(
    kind: str, name: str, on_cpu: None, tmp_path: Path
) -> None:
    folder = folder_of(name, tmp_path)
    whole = sum(p.numel() for p in load_network(folder / "model").parameters())  # type: ignore[union-attr]
    before = (folder / "model" / "model.safetensors").read_bytes()
    setup = trained(folder, 12, model__quantization=kind)
    ours, plain = logits(setup.network), theirs(quantised_by_transformers(folder / "model", kind))
    wrapped = peft.PeftModel.from_pretrained(quantised_by_transformers(folder / "model", kind), folder / "out").eval()
    assert (ours - plain).abs().max() > 1e-2  # it has learned
    torch.testing.assert_close(theirs(wrapped), ours, atol=1e-4, rtol=1e-4)
    assert {p.name for p in (folder / "out").iterdir()} & {"model.safetensors", "config.json"} == set()
    assert all("lora" in key for key in load_file(folder / "out" / "adapter_model.safetensors"))
    assert (folder / "model" / "model.safetensors").read_bytes() == before
    learns = sum(p.numel() for p in setup.network.parameters() if p.requires_grad)
    assert abs(size(setup.network) - learns - whole) < 0.02 * whole  # positions that are computed are no parameters
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        opened = load(folder / "out")
    told = [str(each.message) for each in found if "beside its base" in str(each.message)]
    assert len(told) == 1 and f"in {kind[0]} bits" in told[0] and "\n" not in told[0]
    merged = peft.PeftModel.from_pretrained(
        transformers.AutoModelForSeq2SeqLM.from_pretrained(folder / "model"), folder / "out"
    ).eval()
    torch.testing.assert_close(logits(opened.network), theirs(merged), atol=2e-5, rtol=1e-4)


@REAL
@pytest.mark.parametrize("kind", SETTINGS)
def test_a_whole_training_beside_it_goes_on_to_the_bit(kind: str, on_cpu: None, tmp_path: Path) -> None:
    """With its pre-flight, rules, checkpoints, state and report."""
    folder = folder_of("t5", tmp_path)
    data = {"train": task(folder, "text"), "valid": task(folder, "text")}
    options = {"lora": {"rank": 4}, "steps": 8, "evaluate_every": 4, "schedule": "constant", "warmup_steps": 1}
    asked = recipe(folder, data, options, quantization=kind).model_copy(update={"output": str(tmp_path / "runs")})
    whole = sourcewise.train(asked.model_copy(update={"name": "whole"}))
    half = asked.model_copy(update={"name": "half", "train": asked.train.model_copy(update={"steps": 4})})
    sourcewise.train(half)
    run = sourcewise.train(half, {"train.steps": 8}, resume=True)
    first, second = (load_file(each.last / "adapter_model.safetensors") for each in (whole, run))
    assert all(torch.equal(first[name], second[name]) for name in first)
    state = torch.load(whole.state, weights_only=True)
    assert not state["optimizer"]["frozen"] and state["base"]
    losses = [line["loss"] for line in whole.metrics() if line["kind"] == "evaluation"]
    assert len(losses) == 2 and losses[1] < losses[0]
    assert json.loads((whole.best / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        (folder / "model").resolve()
    )


@REAL
def test_sounds_and_a_bridge_go_into_a_quantised_model(on_cpu: None, tmp_path: Path) -> None:
    folder = folder_of("whisper", tmp_path / "w")
    setup = trained(folder, reads="sounds", model__quantization="4bit")
    with torch.no_grad():
        source = setup.train.batch([0, 3]).source
        assert setup.network.decode(TARGETS, setup.network.encode(source)).isfinite().all()
    behind = trained(folder_of("t5", tmp_path / "b"), reads="sounds", model__quantization="4bit")
    assert behind.network.bridge is not None
    assert np.isfinite(float(next(behind.network.bridge.parameters()).sum()))
    assert (tmp_path / "b" / "out" / "bridge.safetensors").is_file()


@REAL
def test_damaged_weights_are_found_before_they_are_packed(on_cpu: None, tmp_path: Path) -> None:
    folder = folder_of("t5", tmp_path) / "model"
    weights = load_file(folder / "model.safetensors")
    weights["decoder.block.0.layer.0.SelfAttention.q.weight"][3, 3] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NotFinite, match=r"model\.safetensors: decoder\.block\.0.*q\.weight is not finite"):
        load_network(folder, Quantised("4bit", CPU))
