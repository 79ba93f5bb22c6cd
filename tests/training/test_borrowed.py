"""Frozen weights that another folder keeps: no state holds them, and no run goes on beside others in their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import sourcewise
from sourcewise.config import Recipe
from sourcewise.config.files import save_recipe
from sourcewise.errors import RequestError
from sourcewise.model.borrowed import borrowed, digest
from sourcewise.training.setup import set_up
from tests.commands import ENVIRONMENT
from tests.forking import Forking
from tests.model.families.zoo import task
from tests.training.test_huggingface import folder_of, recipe
from tests.training.test_source_encoder import sounds_folder
from tests.training.test_training import KILL

pytest.importorskip("transformers")
pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")
TRAIN = {"evaluate_every": 4, "log_every": 1, "schedule": "constant", "warmup_steps": 1, "threads": 1}
LORA = {"rank": 2, "dropout": 0.1}


def asked(folder: Path, kind: str, name: str, steps: int, precision: str = "fp32") -> Recipe:
    """A training of adapters on a tiny model; `encoder`: of a T5 behind a frozen encoder of samples, too."""
    reads = {"whisper": "sounds", "encoder": "samples"}.get(kind, "text")
    data = task(folder, reads, 1) if reads == "samples" else task(folder, reads)
    train = {**TRAIN, "preflight": False, "steps": steps, "lora": LORA, "precision": precision}
    model = {"source_encoder": str(folder / "wav")} if kind == "encoder" else {}
    made = recipe(folder, {"train": data, "valid": data, "max_frames": 2000}, train, **model)
    return made.model_copy(update={"name": name, "output": str(folder / "runs")})


def base_of(folder: Path, kind: str) -> Path:
    if kind == "encoder":
        sounds_folder(folder / "wav", "Wav2Vec2")
    return folder_of("t5" if kind == "encoder" else kind, folder) / "model"


def tensors(state: Any) -> int:
    """Bytes of all tensors in a state."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    values = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else ()
    return sum(tensors(each) for each in values)


def adapters(folder: Path) -> dict[str, torch.Tensor]:
    found = load_file(folder / "adapter_model.safetensors")
    return found | (load_file(folder / "bridge.safetensors") if (folder / "bridge.safetensors").is_file() else {})


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["t5", "bart", "m2m_100", "whisper", "encoder"])
def test_a_state_holds_what_learns_alone_and_goes_on_to_the_bit(kind: str, precision: str, tmp_path: Path) -> None:
    base_of(tmp_path, kind)
    whole = sourcewise.train(asked(tmp_path, kind, "whole", 8, precision))
    half = asked(tmp_path, kind, "half", 4, precision)
    run = sourcewise.train(half)
    state = torch.load(run.state, weights_only=True)
    setup = set_up(half)
    learns = sum(p.numel() for p in setup.network.parameters() if p.requires_grad)
    lent = borrowed(setup.network)
    assert len(lent) > 10 and not set(state["optimizer"]["frozen"]) & {f"network.{name}" for name in lent}
    assert tensors(state["optimizer"]["frozen"]) == 0
    assert 12 * learns <= tensors(state) <= 12.1 * learns + 8 * len(state["optimizer"]["masters"])
    assert state["base"] == digest(lent) != ""
    run = sourcewise.train(half, {"train.steps": 8}, resume=True)
    first, second = adapters(whole.last), adapters(run.last)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("kind", "file"), [("t5", "model"), ("whisper", "model"), ("encoder", "wav")])
def test_a_run_does_not_go_on_beside_other_weights(kind: str, file: str, tmp_path: Path) -> None:
    base_of(tmp_path, kind)
    half = asked(tmp_path, kind, "half", 4)
    sourcewise.train(half)
    path = tmp_path / file / "model.safetensors"
    kept = path.read_bytes()
    weights = load_file(path)
    name = next(name for name, tensor in sorted(weights.items()) if tensor.numel() > 1000 and "mask" not in name)
    weights[name].flatten()[777] += 1e-3  # one number
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(RequestError, match=rf"state\.pt: the frozen weights .* are others now.*{file}.* put it back"):
        sourcewise.train(half, {"train.steps": 8}, resume=True)
    path.write_bytes(kept)
    assert sourcewise.train(half, {"train.steps": 8}, resume=True).metrics()[-1]["step"] == 8


def test_states_of_older_versions_that_hold_the_base_go_on(tmp_path: Path) -> None:
    base_of(tmp_path, "t5")
    whole = sourcewise.train(asked(tmp_path, "t5", "whole", 8))
    half = asked(tmp_path, "t5", "half", 4)
    run = sourcewise.train(half)
    state = torch.load(run.state, weights_only=True)
    lent = borrowed(set_up(half).network)
    state["optimizer"]["frozen"] |= {f"network.{name}": weight.detach().clone() for name, weight in lent.items()}
    del state["base"]
    torch.save(state, run.state)
    run = sourcewise.train(half, {"train.steps": 8}, resume=True)
    first, second = adapters(whole.last), adapters(run.last)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_adapters_that_are_frozen_themselves_stay_in_the_state(tmp_path: Path) -> None:
    base_of(tmp_path, "t5")
    frozen = asked(tmp_path, "t5", "frozen", 4)
    frozen = frozen.model_copy(update={"train": frozen.train.model_copy(update={"freeze": ["encoder"]})})
    state = torch.load(sourcewise.train(frozen).state, weights_only=True)
    assert state["optimizer"]["frozen"] and all("lora" in n or "parametriz" in n for n in state["optimizer"]["frozen"])


@pytest.mark.parametrize("kind", ["t5", "m2m_100"])
def test_killed_and_resumed_the_adapters_are_the_same(kind: str, tmp_path: Path) -> None:
    base_of(tmp_path, kind)
    whole = sourcewise.train(asked(tmp_path, kind, "whole", 8))
    folder, file = tmp_path / "runs" / "killed", tmp_path / "killed.yaml"
    save_recipe(asked(tmp_path, kind, "killed", 8), file)
    with Forking(tmp_path, ENVIRONMENT) as forked:
        for moment, count in (("step", 2), ("step", 6), ("evaluation", 1), ("state", 1), ("swap", 1)):
            target = str(folder) if (folder / "recipe.yaml").exists() else str(file)
            assert forked.run([target, moment, str(count)], KILL).returncode == -9, moment
    run = sourcewise.train(str(folder), resume=True)
    first, second = adapters(whole.last), adapters(run.last)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_digest_is_to_the_bit_and_in_any_order() -> None:
    torch.manual_seed(0)
    first = {"a": torch.randn(70, 30), "b": torch.randn(5).bfloat16(), "c": torch.arange(7, dtype=torch.uint8)}
    assert digest(first) == digest(dict(reversed(first.items()))) == digest({n: t.clone() for n, t in first.items()})
    for name in first:
        changed = {**first, name: first[name].clone()}
        changed[name].view(torch.uint8).flatten()[3] ^= 1
        assert digest(changed) != digest(first)
    assert digest({**first, "a": first["a"].T.contiguous()}) != digest(first)
    assert digest({}) == ""
