"""Presets: published architectures to train from scratch, with the values of their Hugging Face configurations.

The vocabulary size is not among them: it follows the tokenizer.
"""

from __future__ import annotations

import difflib
from typing import Any

Shape = dict[str, Any]  # options of ModelConfig


def _t5(
    d_model: int, d_kv: int, d_ff: int, heads: int, layers: tuple[int, int], activation: str = "gated-gelu"
) -> Shape:
    """Shape of a T5; only the first release ties the output head to the embedding and has no gated activation."""
    sizes = {"d_model": d_model, "d_kv": d_kv, "d_ff": d_ff, "heads": heads}
    depth = {"encoder_layers": layers[0], "decoder_layers": layers[1]}
    return {"family": "t5", **sizes, **depth, "activation": activation, "tied": activation == "relu"}


def _bart(d_model: int, d_ff: int, heads: int, layers: int) -> Shape:
    sizes = {"d_model": d_model, "d_ff": d_ff, "heads": heads, "positions": 1024}
    return {"family": "bart", **sizes, "encoder_layers": layers, "decoder_layers": layers, "activation": "gelu"}


FIRST = {  # Raffel et al. 2020
    "small": _t5(512, 64, 2048, 8, (6, 6), "relu"),
    "base": _t5(768, 64, 3072, 12, (12, 12), "relu"),
    "large": _t5(1024, 64, 4096, 16, (24, 24), "relu"),
    "3b": _t5(1024, 128, 16384, 32, (24, 24), "relu"),
    "11b": _t5(1024, 128, 65536, 128, (24, 24), "relu"),
}
GATED = {  # T5 1.1, and in its shapes FLAN-T5 (Chung et al. 2022) and mT5 (Xue et al. 2021)
    "small": _t5(512, 64, 1024, 6, (8, 8)),
    "base": _t5(768, 64, 2048, 12, (12, 12)),
    "large": _t5(1024, 64, 2816, 16, (24, 24)),
    "xl": _t5(2048, 64, 5120, 32, (24, 24)),
    "xxl": _t5(4096, 64, 10240, 64, (24, 24)),
}
BYTES = {  # ByT5 (Xue et al. 2022): three encoder blocks per decoder block
    "small": _t5(1472, 64, 3584, 6, (12, 4)),
    "base": _t5(1536, 64, 3968, 12, (18, 6)),
    "large": _t5(1536, 64, 3840, 16, (36, 12)),
    "xl": _t5(2560, 64, 6720, 32, (36, 12)),
    "xxl": _t5(4672, 64, 12352, 64, (36, 12)),
}
SERIES = {"t5": FIRST, "t5-v1_1": GATED, "flan-t5": GATED, "mt5": GATED, "byt5": BYTES}
PRESETS: dict[str, Shape] = {
    **{f"{series}-{size}": shape for series, sizes in SERIES.items() for size, shape in sizes.items()},
    "flan-ul2": _t5(4096, 256, 16384, 16, (32, 32), "gated-silu"),  # Tay et al. 2023
    "bart-base": _bart(768, 3072, 12, 6),  # Lewis et al. 2020
    "bart-large": _bart(1024, 4096, 16, 12),
}
TOLD = "t5-small … t5-11b, {t5-v1_1,flan-t5,mt5,byt5}-{small … xxl}, flan-ul2, bart-base, bart-large"


def shape(name: str) -> Shape:
    """Options of a preset. Raises ValueError for an unknown one, with the nearest name."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.6)
        raise ValueError(f"preset {name!r} is unknown; " + (f"did you mean {near[0]}?" if near else f"known: {TOLD}"))
    return PRESETS[name]
