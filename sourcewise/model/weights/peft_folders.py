"""Recognises folders and tensors of adapters (LoRA and others) and of quantised weights, and refuses them.

They are not supported yet. A base model is never used silently in place of an adapter.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sourcewise.errors import RequestError, tell
from sourcewise.model.weights.weight_files import Weights, counted, read_json, some

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


def refuse_adapter(folder: Path) -> None:
    """Raises RequestError if a folder has an adapter, alone or beside its model; warns of those in subfolders."""
    if is_adapter(folder):
        whole = (folder / "config.json").is_file()
        kind, base, cure = _described(folder)
        if not whole:
            raise RequestError(f"{folder}: is an adapter{kind} of {base}; adapters are not opened yet: {cure}")
        here = next(name for name in FILES if (folder / name).is_file())
        alone = f"or move {here} and what belongs to it elsewhere to have the model without it"
        raise RequestError(f"{folder}: a model with an adapter{kind} of {base} beside it ({here}); {cure}, {alone}")
    below = [p.name for p in sorted(folder.glob("*/")) if is_adapter(p) and not p.name.startswith("checkpoint-")]
    if below:
        tell(f"{folder}: the model is opened without the adapters in its folders ({some(below)})")


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
    """(kind in brackets, base model, advice) of the adapter in a folder."""
    said: dict[str, Any] = {}
    with contextlib.suppress(RequestError):  # it is an adapter even without a readable file
        said = read_json(folder / CONFIG)
    if "peft_type" not in said and ("model_name" in said or "hidden_size" in said):  # AdapterHub
        base = str(said.get("model_name") or "a model that it does not name")
        return " of AdapterHub", base, "merge it (adapters: model.merge_adapter(NAME)) and save the model"
    kind, base = said.get("peft_type"), str(said.get("base_model_name_or_path") or "a model that it does not name")
    if kind in UNMERGED:
        return f" ({kind})", base, f"such a one cannot be merged; train {base} itself, or with LoRA"
    merged = f"AutoPeftModelForSeq2SeqLM.from_pretrained({str(folder)!r}).merge_and_unload()"
    return f" ({kind})" if kind else "", base, f"merge it (peft: {merged}) and save that"
