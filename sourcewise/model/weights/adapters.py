"""Folders of adapters, as peft writes them: written, and opened by merging them into the weights of their base.

```
adapter_config.json  adapter_model.safetensors      peft's
sourcewise.json  bridge.safetensors                 route and bridge that were trained with it, as in a checkpoint
```
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from sourcewise.errors import RequestError, tell
from sourcewise.model.weights.interchange import check_finite
from sourcewise.model.weights.peft_folders import CONFIG, opens
from sourcewise.model.weights.weight_files import (
    Weights,
    counted,
    first_line,
    read_json,
    read_pickled,
    read_safetensors,
)

BASE, BITS = "base", "quantization"  # in the metadata of the adapter's file
VALUES = 64  # of each tensor in a digest
FILE, PICKLED = "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."  # before the names of the model's modules
OURS = "sourcewise-"  # beginning of model types that transformers does not know


def peft() -> Any:
    """The package peft. Raises RequestError if it is not installed."""
    try:
        return importlib.import_module("peft")
    except ImportError:
        raise RequestError("adapters need peft: pip install 'sourcewise[lora]'") from None


def targeted(config: Any, name: str) -> bool:
    """Whether a module of this name is a target of peft's configuration."""
    peft()
    return bool(importlib.import_module("peft.tuners.tuners_utils").check_target_module_exists(config, name))


def write_adapter(folder: Path, config: Any, state: Mapping[str, Tensor], base: str = "", bits: str = "") -> None:
    """Write an adapter as peft does, in fp32.

    `base` is the digest of the weights that it was trained beside, `bits` how they were quantised: 8bit or 4bit.
    """
    inference, config.inference_mode = config.inference_mode, True
    config.save_pretrained(str(folder))
    config.inference_mode = inference
    told = {BASE: base, BITS: bits}
    kept = {name: tensor.detach().float().cpu().contiguous().clone() for name, tensor in state.items()}
    save_file(kept, folder / FILE, metadata={"format": "pt", **{k: v for k, v in told.items() if v}})


def base_of(folder: Path, find: Callable[[str | Path], Path]) -> Path:
    """The folder of an adapter's base: beside the adapter, as a path, or by its hub name; `find` finds a model.

    Raises RequestError with the name of the base.
    """
    said = read_json(folder / CONFIG)
    name, kind = str(said["base_model_name_or_path"]), said["peft_type"]
    near = [place / name for place in (folder, folder.parent) if (place / name).is_dir() and place / name != folder]
    try:
        base = find(near[0] if near else name)
    except RequestError as error:
        told = f"write its folder into base_model_name_or_path of {CONFIG}"
        raise RequestError(f"{folder}: an adapter ({kind}) whose base is not found ({error}); {told}") from None
    if opens(base):
        raise RequestError(f"{folder}: an adapter ({kind}) of {base}, which is an adapter itself; merge that one first")
    return base


def merged(base: Path, config: Mapping[str, Any], weights: Weights, folder: Path) -> Weights:
    """The weights of a base with the adapter of a folder added. Raises RequestError if they do not fit."""
    state = _state(folder)
    _tell_of_base(base, weights, folder)
    if str(config.get("model_type")).startswith(OURS):
        return _added(weights, state, folder)
    from sourcewise.model.weights.huggingface_folders import load_huggingface_network

    model = load_huggingface_network(base, weights).model
    found = Weights(_by_peft(model, state, folder), base, weights.files)
    found.main = weights.main
    return found


def digest(weights: Mapping[str, Tensor]) -> str:
    """A digest of a model's weights, in any precision that holds them: of some numbers of each tensor."""
    found = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(weights.items()):
        found.update(f"{name} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().flatten()
        some = torch.linspace(0, max(0, len(flat) - 1), min(len(flat), VALUES)).long()
        found.update(flat[some].float().cpu().numpy().tobytes())
    return found.hexdigest()


def _tell_of_base(base: Path, weights: Weights, folder: Path) -> None:
    """Warn if the base of an adapter that was trained here has other weights than then, or was quantised."""
    if not (folder / FILE).is_file():
        return
    with safetensors.safe_open(folder / FILE, "pt") as file:
        said = file.metadata() or {}
    had = said.get(BASE)
    if said.get(BITS):
        beside = f"trained beside its base in {said[BITS][0]} bits, and added to the base as it is stored"
        tell(f"{folder}: {beside}: outputs may differ a little from those in training")
    if had and had != digest(weights):
        tell(
            f"{folder}: {base} is not the base as the adapter was trained with it: its weights are others; put it back"
        )


def add_to(model: Any, folder: Path) -> dict[str, Tensor]:
    """The tensors of a model of transformers with the adapter of a folder added. Raises RequestError."""
    return _by_peft(model, _state(folder), folder)


def _state(folder: Path) -> Weights:
    """The tensors of an adapter."""
    file = folder / FILE
    held = read_safetensors(file) if file.is_file() or not (folder / PICKLED).is_file() else None
    state = Weights(read_pickled(folder / PICKLED) if held is None else held, folder)
    state.main = file if held is not None else folder / PICKLED
    check_finite(state.items(), state)
    return state


def _by_peft(model: Any, state: Weights, folder: Path) -> dict[str, Tensor]:
    """The tensors of a model of transformers after peft has merged an adapter into it."""
    try:
        wrapper = peft().PeftModel(model, peft().PeftConfig.from_pretrained(str(folder)))
        result = peft().set_peft_model_state_dict(wrapper, dict(state))
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{state.main}: does not fit its base {model.name_or_path} ({first_line(error)})") from None
    own = (wrapper.base_model.prefix, "modules_to_save.")
    missing = [name for name in result.missing_keys if any(part in name for part in own)]
    for names, problem in ((result.unexpected_keys, "of no module of the base"), (missing, "missing")):
        if names:
            raise RequestError(f"{state.main}: {counted(list(names))} {problem}; is its base another model?")
    try:
        return dict(wrapper.merge_and_unload().state_dict())
    except (AttributeError, NotImplementedError, ValueError) as error:
        raise RequestError(f"{folder}: an adapter that cannot be merged ({first_line(error)})") from None


@torch.no_grad()
def _added(weights: Weights, state: Weights, folder: Path) -> Weights:
    """The weights of a network of ours with W + scale · B A: its names are ours, and peft knows none."""
    said, found = read_json(folder / CONFIG), weights.without("")
    scale = float(said["lora_alpha"]) / float(said["r"])
    for name, down in state.items():
        module = name.removeprefix(PREFIX).removesuffix(".lora_A.weight")
        if name.endswith(".lora_A.weight"):
            up, whole = state.get(f"{PREFIX}{module}.lora_B.weight"), found.get(f"{module}.weight")
            if up is None or whole is None or whole.shape != (len(up), down.shape[1]):
                raise RequestError(f"{state.main}: {name} fits no module of its base; is its base another model?")
            found[f"{module}.weight"] = torch.addmm(whole.float(), up.float(), down.float(), alpha=scale)
    left = [name for name in state if not name.endswith((".lora_A.weight", ".lora_B.weight"))]
    if left:
        raise RequestError(f"{state.main}: {counted(left)} of no LoRA that sourcewise wrote")
    return found
