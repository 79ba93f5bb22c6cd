"""Checkpoints: a network as a Hugging Face folder, with the files of its bridge if it has one.

```
config.json  model.safetensors  generation_config.json      as transformers writes a T5
sourcewise.json  bridge.safetensors                         route and bridge, feature models only
tokenizer.json ...                                          written by data/tokenizer.py
```
Of a network with adapters these are written in place of the weights, see `adapters.py`. Nothing is ever unpickled:
safetensors, or `torch.load(weights_only=True)` for old folders.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from sourcewise.config import BridgeConfig, FeatureEncoderConfig, GenerationConfig
from sourcewise.config.model import bridge_kinds
from sourcewise.errors import RequestError
from sourcewise.model.families import registry as families
from sourcewise.model.families import t5
from sourcewise.model.generation_defaults import FIRST, GenerationDefaults
from sourcewise.model.inputs.bridges import Bridge
from sourcewise.model.inputs.registry import behind, build_bridge
from sourcewise.model.inputs.source_encoder import SourceEncoder
from sourcewise.model.network import Seq2Seq
from sourcewise.model.protocol import Network
from sourcewise.model.quantised import Quantised
from sourcewise.model.weights import adapters, source_encoders
from sourcewise.model.weights.generation_config import EOS, IDS, OF_CLASS, PAD, START, Search, Told, read_told
from sourcewise.model.weights.generation_config import write_search as search_settings
from sourcewise.model.weights.interchange import check_finite
from sourcewise.model.weights.peft_folders import is_adapter, opens, refuse_adapter, refuse_quantised
from sourcewise.model.weights.weight_files import Weights, first_line, read_json, read_safetensors, read_weights, some
from sourcewise.runtime import hub

TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "spiece.model", "sentencepiece.bpe.model", "vocab.json")


def find_folder(name: str | Path) -> Path:
    """The checkpoint folder of a run folder, a Hugging Face folder or a hub name.

    A hub name is fetched; of a run it is the best checkpoint, else the last. Raises RequestError.
    """
    path = Path(name).expanduser()
    kept = [path / "checkpoints" / part for part in ("best", "last")]
    candidates = [path, *(place for folder in kept for place in (folder, _aside(folder)))]
    for candidate in candidates:
        if opens(candidate) or (candidate / "config.json").is_file():
            return candidate
    if (path / "recipe.yaml").is_file():
        raise RequestError(f"{path}: no checkpoint yet; go on with: sourcewise train {path} --resume")
    if path.exists():
        raise RequestError(_no_checkpoint(path))
    text = str(name)
    if text.startswith((".", "/", "~")) or text.count("/") > 1 or "\\" in text:
        raise RequestError(f"{path}: no such folder; give a run, a Hugging Face folder or a hub name")
    return _download(text)


def _no_checkpoint(path: Path) -> str:
    """The reason why a path is no checkpoint, and a suggestion, in words."""
    if path.is_file():
        return f"{path}: a file; name the folder that it is in"
    numbered = [p for p in path.glob("checkpoint-*/") if p.name.removeprefix("checkpoint-").isdecimal()]
    numbered.sort(key=lambda p: int(p.name.removeprefix("checkpoint-")))
    if numbered:
        names = ", ".join(p.name for p in numbered[-8:])
        count = f"{len(numbered)}, the last of them " if len(numbered) > 8 else ""
        return f"{path}: the output folder of a Trainer; its checkpoints are {count}{names}; name one: {numbered[-1]}"
    adapters = [p.name for p in sorted(path.glob("*/")) if is_adapter(p)]
    if adapters:
        return f"{path}: holds adapters ({some(adapters)}) and no model; name one: {path / adapters[0]}"
    models = [p.name for p in sorted(path.glob("*/")) if (p / "recipe.yaml").is_file() or (p / "config.json").is_file()]
    inside = f"; it holds {some(models)}: name one: {path / models[0]}" if models else ""
    return f"{path}: neither a run nor a Hugging Face folder (no config.json, no checkpoints/){inside}"


def _download(name: str) -> Path:
    """The folder of a hub model, fetched or from the local cache."""
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "*.model", "*.txt"]
    try:
        folder = Path(snapshot_download(name, allow_patterns=wanted))
        if not any(folder.glob("model*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=[*wanted, "pytorch_model*.bin"]))
        return folder
    except Exception as error:
        right = "give a run, a Hugging Face folder or a hub name"
        raise RequestError(f"{name}: no folder of this name here, and {hub.reason(error)}; {right}") from None


def load_network(folder: Path, quantised: Quantised | None = None) -> Network:
    """The network in a checkpoint folder, in fp32 and evaluation mode.

    Weights of our architectures are loaded into our own network, other seq2seq models, and all that are to be
    quantised, into the Hugging Face adapter. Raises RequestError for files that are missing, truncated or of another
    shape.
    """
    base = model_folder(folder)
    refuse_adapter(base)
    config = read_json(base / "config.json")
    refuse_quantised(base, config)
    family = families.of_model_type(config.get("model_type"))
    weights = read_weights(base, config)
    if base != folder:
        weights = adapters.merged(base, config, weights, folder)
    with _described(base / "config.json"):
        foreign = family.foreign(config, weights) if family else f"a {config.get('model_type')}"
        if family and quantised:
            foreign = f"a {config.get('model_type')} in {quantised.kind[0]} bits"
    if family is None or foreign:
        from sourcewise.model.weights.huggingface_folders import load_huggingface_network

        network: Seq2Seq = load_huggingface_network(base, weights, foreign, _with_settings(folder), quantised)
    else:
        with _described(base / "config.json"):
            defaults = _read_defaults(_with_settings(folder), config)
            network = Seq2Seq(family.read(config, weights))
        network.defaults = defaults
    for place in dict.fromkeys((folder, base)):  # the bridge that was trained with an adapter, else that of its base
        if (place / "sourcewise.json").is_file():
            _read_bridge(network, place)
            break
        if (place / "bridge.safetensors").is_file():
            raise RequestError(f"{place / 'sourcewise.json'}: missing; it describes the bridge of bridge.safetensors")
    return network.eval()


def model_folder(folder: Path) -> Path:
    """The folder of the model: of an adapter, that of its base. Raises RequestError if it is not found."""
    return adapters.base_of(folder, find_folder) if opens(folder) else folder


def tokenizer_folder(folder: Path) -> Path:
    """The folder of a checkpoint's tokenizer: that of an adapter's base, if the adapter brings none."""
    own = any((folder / name).is_file() for name in TOKENIZERS)
    return folder if own else model_folder(folder)


def _with_settings(folder: Path) -> Path:
    """The folder whose generation settings hold: an adapter's, if it has any."""
    return folder if (folder / "generation_config.json").is_file() else model_folder(folder)


def _read_bridge(network: Seq2Seq, folder: Path) -> None:
    """Put the bridge of a folder before a network, with its weights, and set its route."""
    extra, shape = read_json(folder / "sourcewise.json"), network.body.config
    with _described(folder / "sourcewise.json"):
        network.route = {"encoder": "encoder", "bypass": "bypass"}[extra["route"]]  # type: ignore[assignment]
        before = FeatureEncoderConfig(**extra.get("feature_encoder", {}))
        origin = extra.get("source_encoder")
        kind = extra["bridge"].get("kind")
        if kind not in bridge_kinds():
            known = ", ".join(bridge_kinds())
            problem = f"a bridge of kind {kind!r}, not {known}; a plug-in's?"
            raise RequestError(f"{folder / 'sourcewise.json'}: {problem}")
        bridge = BridgeConfig(**extra["bridge"])
        if origin is None:
            network.bridge = build_bridge(bridge, extra["dims"], shape.d_model, shape.dropout, before)
        else:
            encoder = source_encoders.reopen(origin, extra["dims"], folder, find_folder)
            network.bridge = behind(encoder, bridge, shape.d_model, shape.dropout)
    _fill_bridge(network.bridge, folder)


def _fill_bridge(bridge: Bridge, folder: Path) -> None:
    weights = _bridge_weights(folder)
    if isinstance(bridge.encoder, SourceEncoder):  # which has files of its own
        weights.update({f"encoder.{name}": tensor for name, tensor in bridge.encoder.state_dict().items()})
    try:
        bridge.load_state_dict(weights)
    except RuntimeError as error:
        problem = f"does not fit the bridge of sourcewise.json ({first_line(error)})"
        raise RequestError(f"{weights.main}: {problem}") from None
    check_finite(bridge.state_dict().items(), weights)


def _bridge_weights(folder: Path) -> Weights:
    path = folder / "bridge.safetensors"
    weights = Weights(read_safetensors(path), folder)
    weights.main = path
    return weights


def generation_told(folder: Path) -> Told:
    """The generation settings of a checkpoint folder. Raises RequestError for a file that is no JSON object."""
    return read_told(_with_settings(folder), read_json(model_folder(folder) / "config.json"))


def load_feature_encoder(folder: Path) -> tuple[FeatureEncoderConfig, int, dict[str, Tensor]]:
    """The shape, dims and weights of the feature encoder in a checkpoint folder, with the features' statistics.

    The keys are those of a bridge: encoder.…, mean and deviation. Raises RequestError if there is none.
    """
    extra = read_json(folder / "sourcewise.json") if (folder / "sourcewise.json").is_file() else {}
    if "feature_encoder" not in extra:
        raise RequestError(f"{folder}: holds no feature encoder; name a run with model.feature_encoder.layers")
    with _described(folder / "sourcewise.json"):
        config, dims = FeatureEncoderConfig(**extra["feature_encoder"]), int(extra["dims"])
    weights = _bridge_weights(folder)
    kept = {k: w for k, w in weights.items() if k.startswith("encoder.") or k in ("mean", "deviation")}
    check_finite(kept.items(), weights)
    return config, dims, kept


def _read_defaults(folder: Path, config: dict[str, Any]) -> GenerationDefaults:
    """The generation defaults of a folder of one of our families; writes their ids into `config`."""
    told = read_told(folder, config)
    kind, size = str(config.get("model_type")), config.get("vocab_size")
    vocabulary = size if type(size) is int else sys.maxsize  # a missing one is reported when the shape is read
    ids = Search(folder, told.settings, config, vocabulary, OF_CLASS.get(kind, {})).ids(kind in t5.MODEL_TYPES)
    config |= {START: ids.start, EOS: ids.ends[0], PAD: ids.pad}
    return GenerationDefaults.read(told.settings, told.file, ids.ends, vocabulary)


@contextlib.contextmanager
def _described(path: Path) -> Iterator[None]:
    """Within: a network is made from a JSON file; errors become a RequestError with the file's name."""
    try:
        yield
    except RequestError:
        raise
    except Exception as error:  # any value may have any type and size
        reason = f"no {error}" if isinstance(error, KeyError) else first_line(error)
        raise RequestError(f"{path}: describes no network that can be made ({reason}); copy it again") from None


def save_network(
    network: Seq2Seq, folder: Path, tokenizer: Any = None, generation: GenerationConfig | None = None
) -> None:
    """Write a checkpoint folder; an existing one is replaced only when the new one is complete.

    Its generation_config.json has those options of `generation` that transformers' `generate` supports. Raises
    RequestError if the disk is full or the folder cannot be written.
    """
    fresh = folder.with_name(f".{folder.name}-new")
    shutil.rmtree(fresh, ignore_errors=True)  # left by a kill
    try:
        fresh.mkdir(parents=True)
        _save_body(network, fresh, generation)
        if network.bridge is not None:
            bridge = network.bridge
            extra = {"route": network.route, "bridge": bridge.config.model_dump(), "dims": bridge.dims}
            state = bridge.state_dict()
            if isinstance(bridge.encoder, SourceEncoder):
                extra["source_encoder"] = source_encoders.save(bridge.encoder, fresh)
                state = {k: v for k, v in state.items() if not k.startswith("encoder.")}
            elif bridge.encoder is not None:
                extra["feature_encoder"] = bridge.encoder.config.model_dump(include={"layers", "width", "kernel"})
            _write_json(fresh / "sourcewise.json", extra)
            state = {k: v.float().cpu().contiguous() for k, v in state.items()}
            save_file(state, fresh / "bridge.safetensors")
        if tokenizer is not None:
            tokenizer.save(fresh)
        _replace_folder(fresh, folder)
    except (OSError, SafetensorError) as error:
        raise RequestError(f"{folder}: cannot be written ({first_line(error)}); the one before is kept") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _save_body(network: Seq2Seq, folder: Path, options: GenerationConfig | None) -> None:
    """Write config.json, generation_config.json and the weights."""
    search = {} if options is None else search_settings(options, network.positions)
    family = families.of_body(network.body)
    if network.adapters is not None:
        network.adapters.save(folder)
    if family is None:
        from sourcewise.model.weights.huggingface_folders import save_body

        forced = {FIRST: network.defaults.write().get(FIRST)}  # the language of a training
        save_body(network.body, forced, search, folder, whole=network.adapters is None)  # type: ignore[arg-type]
        return
    config, weights = family.write(network.body)
    ids: dict[str, Any] = {name: config[name] for name in IDS if config.get(name) is not None}
    if len(network.defaults.ends) > 1:
        ids[EOS] = list(network.defaults.ends)
    if network.adapters is None:
        _write_json(folder / "config.json", config)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "generation_config.json", {**ids, **network.defaults.write(), **search})


def _replace_folder(fresh: Path, folder: Path) -> None:
    """Move `fresh` to `folder`; between the two renames the old one is moved aside, not deleted."""
    aside = _aside(folder)
    if folder.exists():  # else a kill came between the renames, and the folder aside is the only one
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    fresh.rename(folder)
    shutil.rmtree(aside, ignore_errors=True)


def _aside(folder: Path) -> Path:
    """Path of the old checkpoint during `_replace_folder`, or after a kill in it."""
    return folder.with_name(f".{folder.name}-old")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
