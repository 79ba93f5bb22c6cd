"""LoRA: trained on any body, saved as peft saves it, opened by peft and by us, merged when it is saved whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sourcewise.generation.model import load
from sourcewise.model.weights.checkpoint import save_network
from sourcewise.training.learner import Learner
from sourcewise.training.setup import TrainingSetup, set_up
from tests.model.families.zoo import task
from tests.training.test_huggingface import folder_of, recipe

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")
IDS = torch.tensor([[5, 9, 3, 1, 0], [7, 7, 2, 8, 1]])
TARGETS = torch.tensor([[0, 4, 11], [0, 6, 2]])


def trained(folder: Path, steps: int = 6, reads: str = "text", **lora: Any) -> TrainingSetup:
    """The setup of a short training with adapters of the model in `folder/model`."""
    options = {"lora": {"rank": 3, **lora}, "learning_rate": 3e-2, "warmup_steps": 1}
    setup = set_up(recipe(folder, {"train": task(folder, reads)}, options))
    learner = Learner(setup)
    for _ in range(steps):
        learner.learn([np.arange(len(setup.train))])
    with learner.optimizer.in_full():
        save_network(setup.network.eval(), folder / "out", setup.tokenizer, setup.recipe.generation)
    return setup


def logits(network: Any) -> Tensor:
    from sourcewise.data.batches import Source

    with torch.no_grad():
        return network.decode(TARGETS, network.encode(Source(IDS, torch.tensor([4, 5]))))


def theirs(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, attention_mask=(IDS != 0).long(), decoder_input_ids=TARGETS).logits


def opened_by_peft(folder: Path) -> Any:
    base = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder / "model")
    return peft.PeftModel.from_pretrained(base, folder / "out").eval()


CASES = [
    ("t5", ["all-linear"]),
    ("t5", ["q", "v"]),
    ("mt5", [r".*decoder.*\.(k|wi_1|o)"]),
    ("bart", ["all-linear"]),
    ("mbart", ["k_proj", "fc2"]),
    ("marian", [r".*decoder.*\.k_proj"]),
    ("m2m_100", ["all-linear"]),
    ("umt5", ["q", "v"]),
]


@pytest.mark.parametrize(("kind", "targets"), CASES)
def test_a_trained_adapter_has_the_same_logits_in_peft_and_merged(
    kind: str, targets: list[str], tmp_path: Path
) -> None:
    folder = folder_of(kind, tmp_path)
    before = load_file(folder / "model" / "model.safetensors")
    setup = trained(folder, targets=targets)
    assert not (folder / "out" / "model.safetensors").exists()
    wrapped = opened_by_peft(folder)
    ours = logits(setup.network)
    plain = theirs(transformers.AutoModelForSeq2SeqLM.from_pretrained(folder / "model").eval())
    assert (ours - plain).abs().max() > 1e-3  # it has learnt something
    assert torch.allclose(theirs(wrapped), ours, atol=2e-5, rtol=1e-4)
    model = load(folder / "out")
    assert torch.allclose(logits(model.network), ours, atol=2e-5, rtol=1e-4)
    save_network(model.network, folder / "whole", model.tokenizer)  # type: ignore[arg-type]
    merged = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder / "whole").eval()
    assert torch.allclose(theirs(merged), ours, atol=2e-5, rtol=1e-4)
    after = load_file(folder / "model" / "model.safetensors")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert json.loads((folder / "out" / "adapter_config.json").read_text())["peft_type"] == "LORA"
