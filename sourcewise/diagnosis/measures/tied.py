"""Whether a model has an output layer of its own that its configuration says is the embedding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

HEAD = "lm_head.weight"
TABLES = ("shared.weight", "model.shared.weight", "model.embed_tokens.weight", "model.decoder.embed_tokens.weight")
APART = 1e-3  # relative; rounding to half precision is less


def apart_in_memory(model: Any) -> str:
    """That the output layer of a model of transformers is none of its embeddings though its configuration ties them."""
    config = getattr(model, "config", None)
    if not getattr(config, "tie_word_embeddings", False) or not getattr(model, "_tied_weights_keys", None):
        return ""  # a class that ties nothing saves all that it has
    head = getattr(model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None, "weight", None)
    tables = [m.weight for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    alike = [table for table in tables if head is not None and table.shape == head.shape]
    if head is None or not alike or any(table is head or torch.equal(table, head) for table in alike):
        return ""
    trained = "learns" if head.requires_grad else "is there"
    return (
        f"an output layer of its own {trained}, and config.tie_word_embeddings says that it is the embedding: a file "
        "of this model has it not, and what is opened again says other words"
    )


def apart_in_file(folder: Path) -> str:
    """The same of a folder whose file of weights has both, and they differ."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        with safe_open(str(folder / "model.safetensors"), framework="pt") as file:
            names = set(file.keys())
            table = next((name for name in TABLES if name in names), "")
            if not config.get("tie_word_embeddings", False) or HEAD not in names or not table:
                return ""
            head, other = file.get_tensor(HEAD).float(), file.get_tensor(table).float()
    except (OSError, ValueError):
        return ""
    if head.shape != other.shape or float((head - other).norm()) <= APART * float(head.norm()):
        return ""
    return (
        f"{HEAD} of the file is another table than {table} (they differ by "
        f"{float((head - other).norm() / head.norm()):.2g} of its size), and tie_word_embeddings of config.json is "
        "true: what is opened has the embedding in its place"
    )
