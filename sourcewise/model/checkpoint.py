"""A network on disk: a Hugging Face folder, plus the bridge beside it where there is one.

```
config.json  model.safetensors  generation_config.json      as transformers writes a T5
sourcewise.json  bridge.safetensors                         route and bridge, feature models only
tokenizer.json ...                                          written by data/tokenizer.py
```
Nothing is ever unpickled: safetensors, or `torch.load(weights_only=True)` for old folders.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sourcewise.config import BridgeConfig, FeatureEncoderConfig
from sourcewise.data import hub
from sourcewise.errors import RequestError
from sourcewise.model import families
from sourcewise.model.bridges import build_bridge
from sourcewise.model.interchange import Habits
from sourcewise.model.protocol import Network
from sourcewise.model.seq2seq import Seq2Seq

START = "decoder_start_token_id"
IDS = (START, "bos_token_id", "eos_token_id", "pad_token_id")


def find_folder(name: str | Path) -> Path:
    """The checkpoint folder behind a run folder, a Hugging Face folder or a hub name.

    A hub name is fetched; a run gives its best checkpoint, else its last. Raises RequestError.
    """
    path = Path(name).expanduser()
    kept = [path / "checkpoints" / part for part in ("best", "last")]
    candidates = [path, *(place for folder in kept for place in (folder, _aside(folder)))]
    for candidate in candidates:
        if (candidate / "config.json").is_file():
            return candidate
    if (path / "recipe.yaml").is_file():
        raise RequestError(f"{path}: no checkpoint yet; go on with: sourcewise train {path} --resume")
    if path.exists():
        raise RequestError(f"{path}: neither a run nor a Hugging Face folder (no config.json, no checkpoints/)")
    text = str(name)
    if text.startswith((".", "/", "~")) or text.count("/") > 1 or "\\" in text:
        raise RequestError(f"{path}: no such folder; give a run, a Hugging Face folder or a hub name")
    return _download(text)


def _download(name: str) -> Path:
    """A hub model's files, fetched or from the local cache."""
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "*.model", "*.txt"]
    try:
        folder = Path(snapshot_download(name, allow_patterns=wanted))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=[*wanted, "pytorch_model*.bin"]))
        return folder
    except Exception as error:
        right = "give a run, a Hugging Face folder or a hub name"
        raise RequestError(f"{name}: no folder of this name here, and {hub.reason(error)}; {right}") from None


def load_network(folder: Path) -> Network:
    """The network in a checkpoint folder, in fp32 and evaluation mode.

    Weights of a family of ours fill our own network; any other seq2seq model comes through the Hugging Face adapter.
    Raises RequestError for files that are missing, truncated or of another shape.
    """
    config = _read_json(folder / "config.json")
    family = families.of_model_type(config.get("model_type"))
    weights = _read_weights(folder) if family else {}
    with _described(folder / "config.json"):
        ours = family is not None and family.computes(config, weights)
    if family is None or not ours:
        from sourcewise.model.huggingface import load_huggingface_network

        return load_huggingface_network(folder)
    habits = _read_habits(folder / "generation_config.json", config)
    with _described(folder / "config.json"):
        body = family.read(config, weights, str(folder))
    bridge, route = None, "encoder"
    if (folder / "sourcewise.json").is_file():
        extra = _read_json(folder / "sourcewise.json")
        with _described(folder / "sourcewise.json"):
            route = {"encoder": "encoder", "bypass": "bypass"}[extra["route"]]
            shape, dropout = body.config.d_model, body.config.dropout
            before = FeatureEncoderConfig(**extra.get("feature_encoder", {}))
            bridge = build_bridge(BridgeConfig(**extra["bridge"]), extra["dims"], shape, dropout, before)
        _load_strict(bridge, _read_safetensors(folder / "bridge.safetensors"), folder / "bridge.safetensors")
    network = Seq2Seq(body, bridge, route)  # type: ignore[arg-type]
    network.barred_ids, network.forced_first, network.forced_last = habits
    return network.eval()


def load_feature_encoder(folder: Path) -> tuple[FeatureEncoderConfig, int, dict[str, Tensor]]:
    """The shape, dims and weights of the feature encoder in a checkpoint folder, and what features were scaled by.

    The keys are those of a bridge: encoder.…, mean and deviation. Raises RequestError where there is none.
    """
    extra = _read_json(folder / "sourcewise.json") if (folder / "sourcewise.json").is_file() else {}
    if "feature_encoder" not in extra:
        raise RequestError(f"{folder}: holds no feature encoder; name a run with model.feature_encoder.layers")
    with _described(folder / "sourcewise.json"):
        config, dims = FeatureEncoderConfig(**extra["feature_encoder"]), int(extra["dims"])
    weights = _read_safetensors(folder / "bridge.safetensors")
    return config, dims, {k: w for k, w in weights.items() if k.startswith("encoder.") or k in ("mean", "deviation")}


def _read_habits(path: Path, config: dict[str, Any]) -> Habits:
    """As transformers reads them: from generation_config.json, and only without one from config.json.

    So is the start of a target where config.json leaves it open, as mBART's does.
    """
    told = _read_json(path) if path.is_file() else config
    with _described(path):
        habits = Habits.read(told)
    config[START] = told.get(START) if config.get(START) is None else config[START]
    return habits


@contextlib.contextmanager
def _described(path: Path) -> Iterator[None]:
    """Within: a network is made as a JSON file describes it; one that describes none raises RequestError."""
    try:
        yield
    except RequestError:
        raise
    except Exception as error:  # any value may be of any type, and as large as it likes
        reason = f"no {error}" if isinstance(error, KeyError) else _first_line(error)
        raise RequestError(f"{path}: describes no network that can be made ({reason}); copy it again") from None


def save_network(network: Seq2Seq, folder: Path, tokenizer: Any = None) -> None:
    """Write a checkpoint folder; a folder already there is replaced only when the new one is complete.

    Raises RequestError where the disk is full or the folder cannot be written.
    """
    fresh = folder.with_name(f".{folder.name}-new")
    shutil.rmtree(fresh, ignore_errors=True)  # what a kill may have left
    try:
        fresh.mkdir(parents=True)
        config, weights = families.of_body(network.body).write(network.body)
        _write_json(fresh / "config.json", config)
        _write_json(fresh / "generation_config.json", _generation(network, config))
        save_file(weights, fresh / "model.safetensors", metadata={"format": "pt"})
        if network.bridge is not None:
            bridge = network.bridge
            extra = {"route": network.route, "bridge": bridge.config.model_dump(), "dims": bridge.dims}
            if bridge.encoder is not None:
                extra["feature_encoder"] = bridge.encoder.config.model_dump(exclude={"weights"})
            _write_json(fresh / "sourcewise.json", extra)
            state = {k: v.float().cpu().contiguous() for k, v in bridge.state_dict().items()}
            save_file(state, fresh / "bridge.safetensors")
        if tokenizer is not None:
            tokenizer.save(fresh)
        _replace_folder(fresh, folder)
    except (OSError, SafetensorError) as error:
        raise RequestError(f"{folder}: cannot be written ({_first_line(error)}); the one before is kept") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _generation(network: Seq2Seq, config: dict[str, Any]) -> dict[str, Any]:
    """What generation_config.json says."""
    habits = Habits(network.barred_ids, network.forced_first, network.forced_last).write()
    ids = {name: config[name] for name in IDS if config.get(name) is not None}
    return {"_from_model_config": True, **ids, **habits}


def _replace_folder(fresh: Path, folder: Path) -> None:
    """Move `fresh` to `folder`. Between the two renames the old one is only set aside, never deleted."""
    aside = _aside(folder)
    if folder.exists():  # else a kill came between the renames, and what is aside is all there is
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    fresh.rename(folder)
    shutil.rmtree(aside, ignore_errors=True)


def _aside(folder: Path) -> Path:
    """Where the checkpoint before is, while `_replace_folder` works or after a kill in it."""
    return folder.with_name(f".{folder.name}-old")


def _read_weights(folder: Path) -> dict[str, Tensor]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weights: dict[str, Tensor] = {}
        for name in sorted(set(_read_json(index)["weight_map"].values())):
            weights |= _read_safetensors(folder / name)
        return weights
    if (folder / "model.safetensors").is_file():
        return _read_safetensors(folder / "model.safetensors")
    parts = sorted(folder.glob("pytorch_model*.bin"))
    if not parts:
        raise RequestError(f"{folder}: no weights (model.safetensors or pytorch_model.bin)")
    weights = {}
    for part in parts:
        try:
            weights |= torch.load(part, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            problem = "truncated, or holds more than plain tensors, which is never loaded"
            raise RequestError(f"{part}: {problem}; save it as model.safetensors") from None
        except Exception as error:
            raise RequestError(f"{part}: cannot be read as plain tensors ({_first_line(error)})") from None
    return weights


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise RequestError(f"{path}: missing") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise RequestError(f"{path}: truncated or not safetensors ({_first_line(error)})") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise RequestError(f"{path}: missing") from None
    except (OSError, ValueError, TypeError) as error:
        raise RequestError(f"{path}: not a JSON object ({_first_line(error)})") from None


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _load_strict(module: torch.nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise RequestError(f"{path}: does not fit the bridge of sourcewise.json ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:160] if lines else type(error).__name__
