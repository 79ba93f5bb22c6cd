"""Folders of Hugging Face models that no family of ours reads: opened and written by transformers' own classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from sourcewise.data.formats.processors import FILES
from sourcewise.errors import RequestError
from sourcewise.model.families.differences import TOKENS, input_of, why_refused
from sourcewise.model.families.huggingface import (
    HuggingFaceBody,
    HuggingFaceNetwork,
    is_computed,
    quiet,
    settings_of,
    spoken_ids,
)
from sourcewise.model.generation_defaults import KEYS
from sourcewise.model.quantised import Quantised
from sourcewise.model.weights import interchange
from sourcewise.model.weights.generation_config import CONFIG, FILE, NEUTRAL, PAD, Ids, Search, read_told
from sourcewise.model.weights.interchange import BIAS, SPARE
from sourcewise.model.weights.weight_files import Weights, read_json, read_weights

REPORTED = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # we refuse the reported misfits


def load_huggingface_network(
    folder: Path,
    weights: Weights | None = None,
    kind: str = "a model of Hugging Face",
    settings: Path | None = None,
    quantised: Quantised | None = None,
) -> HuggingFaceNetwork:
    """A seq2seq model of any architecture from a folder. Raises RequestError if transformers cannot open it.

    No code from the folder is run, and no tensor is initialised at random. `weights` are those of the folder, if read
    already; `kind` names the model in words. Generation settings are those of the folder `settings` if given.
    `quantised` says how its linear layers are stored.
    """
    import transformers

    settings = settings or folder
    read = read_weights(folder, read_json(folder / "config.json")) if weights is None else weights
    if quantised:  # in whole numbers nothing is NaN
        interchange.check_finite(read.items(), read)
    packed = quantised.arguments() if quantised else {}
    try:
        with quiet():
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model, found = _class_of(config).from_pretrained(
                None, config=config, state_dict=dict(read), dtype=torch.float32, **REPORTED, **packed
            )
            own = (settings / "generation_config.json").is_file()
            place: dict[str, Any] = {} if own else {"config_file_name": "config.json", "_from_model_config": True}
            read_generation = transformers.GenerationConfig.from_pretrained
            model.generation_config = read_generation(settings, local_files_only=True, **place)
    except Exception as error:
        raise RequestError(f"{folder}: transformers cannot open it as a seq2seq model ({_reason(error)})") from None
    _check(model, found, read)
    raw = read_json(folder / CONFIG)
    told = read_told(settings, raw)
    default, of_decoder = settings_of(model.config), settings_of(model.config.get_text_config(decoder=True))
    ids = Search(settings, told.settings, raw, spoken_ids(model), default, of_decoder).ids()
    if model.config.pad_token_id is None:
        _try_without_padding(model, ids, folder)
    network = HuggingFaceNetwork(model, ids, told, kind).eval()
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in FILES if (folder / name).is_file()}
    network.body.processor = texts if network.dims else {}
    return network


@torch.no_grad()
def _try_without_padding(model: Any, ids: Ids, folder: Path) -> None:
    """Raises RequestError if a model that reads text computes nothing without a padding id, as M2M-100's positions."""
    if input_of(model) != TOKENS:
        return
    tokens = torch.full((1, 2), ids.start, device=model.device)
    try:
        model(input_ids=tokens, decoder_input_ids=tokens)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        problem = f"is missing, and a {model.config.model_type} computes nothing without it ({_reason(error)})"
        raise RequestError(f"{folder / CONFIG}: {PAD} {problem}; add the id of its tokenizer's padding") from None


def save_body(
    body: HuggingFaceBody, ids: dict[str, Any], search: dict[str, Any], folder: Path, *, whole: bool = True
) -> None:
    """Write a body as the folder that its class writes, with these forced ids in its generation settings.

    The settings of a search are replaced by `search`, if there are any. Without `whole` only generation settings are
    written.
    """
    with quiet():
        (body.model if whole else body.model.generation_config).save_pretrained(folder)
    for name, text in body.processor.items() if whole else ():
        (folder / name).write_text(text, encoding="utf-8")
    path = folder / FILE
    told = {**(read_json(path) if path.is_file() else {}), **ids}
    own = {key: value for key, value in told.items() if not search or key not in NEUTRAL or key in KEYS}
    kept = {key: value for key, value in {**own, **search}.items() if value is not None}
    path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def _class_of(config: Any) -> Any:
    """The transformers class of an encoder–decoder: the one that config.json names, else that of its type.

    Raises ValueError if there is none that writes text.
    """
    import transformers

    if refused := why_refused(config):
        raise ValueError(refused)
    texts, sounds = transformers.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, transformers.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING
    known: list[Any] = [classes[type(config)] for classes in (texts, sounds) if type(config) in classes]
    if not known:
        raise ValueError(f"a {config.model_type} is none that reads a text or sounds and writes a text")
    return next((each for each in known if each.__name__ in (config.architectures or ())), known[0])


def _check(model: Any, found: dict[str, Any], weights: Weights) -> None:
    """Raises RequestError unless all weights of a model come from its files; warns of other tensors in them."""
    expected = model.state_dict()
    left = sorted(name for name in found["unexpected_keys"] if not SPARE.search(name))
    interchange.refuse_adapted(left, weights)
    for name, theirs, ours in sorted(found["mismatched_keys"]):
        interchange.refuse_shape(name, theirs, ours, weights)
    missing = sorted(name for name in found["missing_keys"] if not is_computed(model, name))
    if missing:
        interchange.refuse_missing(missing, left, weights)
    for name, tensor in weights.items():
        if name.endswith(("weight", "bias")) and name not in left and not SPARE.search(name):
            interchange.check_plain(name, tensor, weights)
    interchange.account_for(left, expected, weights)
    head = model.get_output_embeddings()
    buffers = [name for name, _ in model.named_buffers() if not name.endswith(BIAS)]
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    bias = getattr(head, "bias", None)
    barring = [name for name, tensor in named.items() if tensor is bias]
    interchange.check_finite(named.items(), weights, buffers, barring)


def _reason(error: Exception) -> str:
    """The reason of a transformers error in one line, in our words for known ones."""
    text = str(error).strip()
    if "trust_remote_code" in text:
        return "it needs code of its own, which is never run"
    return text.splitlines()[0][:200] if text else type(error).__name__
