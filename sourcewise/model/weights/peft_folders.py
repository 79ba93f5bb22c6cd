"""Recognises folders and tensors of adapters (LoRA and others) and of quantised weights.

Adapters of peft are opened by `adapters.py`; all others are refused here. A base model is never used silently in place
of an adapter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sourcewise.errors import RequestError, tell
from sourcewise.model.weights.weight_files import INDEX, PICKLED, SAFETENSORS, Weights, counted, read_json, some

CONFIG = "adapter_config.json"
FILES = (  # of peft; of the library adapters (AdapterHub)
    *(CONFIG, "adapter_model.safetensors", "adapter_model.bin"),
    *("adapter.safetensors", "pytorch_adapter.bin"),
)
# Parts of tensor names that only an adapter, or a model wrapped by one, has.
ADAPTED = re.compile(
    r"(^|\.)(lora_\w+|base_layer|original_module|modules_to_save|ia3_l|hada_\w+|lokr_\w+|oft_\w+|boft_\w+|vera_\w+"
    r"|prompt_encoder|prompt_embeddings|prefix_encoder|prompt_tuning|prefix_tuning|loras|adapters)(\.|$)"
    r"|^base_model\.model\."
)
# Parts of tensor names that only quantised weights have: bitsandbytes, GPTQ and AWQ, compressed-tensors, torchao.
QUANTISED = re.compile(
    r"(^|\.)(SCB|weight_format|qweight|qzeros|g_idx|weight_packed|weight_scale(_inv)?|input_scale)$"
    r"|\.weight\.(absmax|quant_map|nested_absmax|quant_state\.\w+)$"
)
UNMERGED = ("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING")  # of peft: no weights of layers


def is_adapter(folder: Path) -> bool:
    """Whether a folder has an adapter, with or without its model."""
    return any((folder / name).is_file() for name in FILES)


def opens(folder: Path) -> bool:
    """Whether a folder is an adapter without its model; raises RequestError for one that cannot be opened."""
    if not is_adapter(folder) or _has_model(folder):
        return False
    kind, base, cure = _described(folder)
    if not (folder / CONFIG).is_file() or cure:
        raise RequestError(f"{folder}: is an adapter{kind} of {base}; {cure or f'its {CONFIG} is missing: copy it'}")
    return True


def refuse_adapter(folder: Path) -> None:
    """Raises RequestError if a folder has a model and an adapter beside it; warns of adapters in subfolders."""
    if is_adapter(folder):
        kind, base, cure = _described(folder)
        here = next(name for name in FILES if (folder / name).is_file())
        alone = f"move {here} and what belongs to it elsewhere to have the model without it"
        merge = f"{cure}, or " if cure else "copy the adapter's files elsewhere to open it, or "
        raise RequestError(f"{folder}: a model with an adapter{kind} of {base} beside it ({here}); {merge}{alone}")
    below = [p.name for p in sorted(folder.glob("*/")) if is_adapter(p) and not p.name.startswith("checkpoint-")]
    if below:
        tell(f"{folder}: the model is opened without the adapters in its folders ({some(below)})")


def _has_model(folder: Path) -> bool:
    """Whether a folder has the weights of a model, beside those of an adapter."""
    return any((folder / f"{name}{end}").is_file() for name in (SAFETENSORS, PICKLED) for end in ("", INDEX))


def refuse_adapted(names: list[str], weights: Weights) -> None:
    """Raises RequestError if unused tensors are those of an adapter or of quantised weights."""
    adapter = "an adapter that is not merged; merge it (peft: model.merge_and_unload()) and save the model again"
    quantised = "quantised weights, which are not opened yet; dequantise the model and save it again"
    for pattern, what in ((ADAPTED, adapter), (QUANTISED, quantised)):
        found = [name for name in names if pattern.search(name)]
        if found:
            raise RequestError(f"{weights.file(found[0])}: {counted(found)} of {what}")


def refuse_quantised(folder: Path, config: Mapping[str, Any]) -> None:
    """Raises RequestError if the weights are quantised by config.json."""
    said = config.get("quantization_config")
    if said:
        method = said.get("quant_method", "bitsandbytes") if isinstance(said, dict) else said
        cure = "dequantise the model (transformers: model.dequantize()) and save it again, or take its base"
        raise RequestError(f"{folder / 'config.json'}: weights quantised by {method} are not opened yet; {cure}")


def _described(folder: Path) -> tuple[str, str, str]:
    """(kind in brackets, base model, why it cannot be opened and what to do) of the adapter in a folder."""
    unnamed = "a model that it does not name"
    try:
        said = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    except RequestError:  # it is an adapter even without a readable file
        return "", unnamed, f"its {CONFIG} is no JSON object: copy it again"
    if "peft_type" not in said and ("model_name" in said or "hidden_size" in said):  # AdapterHub
        base = str(said.get("model_name") or unnamed)
        return " of AdapterHub", base, "merge it (adapters: model.merge_adapter(NAME)) and save the model"
    kind, base = said.get("peft_type"), str(said.get("base_model_name_or_path") or unnamed)
    if kind in UNMERGED:
        return f" ({kind})", base, f"such a one cannot be merged; train {base} itself, or with LoRA"
    named = f" ({kind})" if kind else ""
    if said and base == unnamed:
        return named, base, f"write the folder of its model into base_model_name_or_path of {CONFIG}"
    return named, base, "" if kind or not said else f"{CONFIG} has no peft_type: copy it again"
