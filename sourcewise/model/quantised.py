"""Quantised bases: the linear layers of a pretrained model in 8 or 4 bits, beside which adapters learn in full.

bitsandbytes stores and multiplies them, in transformers' own classes: 8 bits with outliers apart (Dettmers et al.
2022), or 4 bits as NF4 whose scales are quantised, too (QLoRA, Dettmers et al. 2023). All that is not a linear layer
stays in fp32: embeddings, norms, biases and the head.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sourcewise.config.model import Quantization
from sourcewise.errors import RequestError
from sourcewise.runtime.device import is_cuda

PACKAGE = "bitsandbytes"
LINEAR = ("Linear4bit", "Linear8bitLt")  # bitsandbytes' classes


@dataclass(frozen=True)
class Quantised:
    """How a base is quantised when it is opened; it is made on its device, since packed weights do not move."""

    kind: Quantization  # 8bit or 4bit
    device: torch.device
    products: torch.dtype = torch.bfloat16  # in which 4-bit weights are multiplied

    def settings(self) -> dict[str, Any]:
        """The settings of transformers' BitsAndBytesConfig."""
        if self.kind == "8bit":
            return {"load_in_8bit": True}
        return {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": self.products,
        }

    def arguments(self) -> dict[str, Any]:
        """The arguments of `from_pretrained`."""
        import transformers

        return {
            "quantization_config": transformers.BitsAndBytesConfig(**self.settings()),
            "device_map": {"": str(self.device)},
        }

    def note(self, model: nn.Module) -> str:
        """What is quantised, in words. Raises RequestError if nothing is."""
        layers = [each for each in model.modules() if type(each).__name__ in LINEAR]
        if not layers:
            problem = "this model has no linear layer to quantise"
            raise RequestError(f"model.quantization: {self.kind}: {problem}; leave it out")
        held = sum(p.numel() * p.element_size() for each in layers for p in each.parameters()) / 2**20
        how = "NF4, scales quantised, too" if self.kind == "4bit" else "outliers in full"
        return f"{len(layers)} linear layers of the base are in {self.kind[0]} bits ({how}): {held:,.1f} MiB"


def asked_quantised(kind: Quantization, device: torch.device, products: torch.dtype) -> Quantised | None:
    """What a recipe asks for; None: nothing. Raises RequestError where it cannot be had."""
    if kind == "none":
        return None
    if not _computes(device):
        problem = f"{kind}: bitsandbytes computes it on CUDA alone, here is {device}"
        raise RequestError(f"model.quantization: {problem}; leave it out, and adapters learn beside the whole base")
    if importlib.util.find_spec(PACKAGE) is None:
        problem = f"{kind}: takes {PACKAGE}, which is not installed"
        raise RequestError(f"model.quantization: {problem}: pip install 'sourcewise[quantized]'")
    return Quantised(kind, device, products)


def is_quantised(network: nn.Module) -> bool:
    """Whether any weight of a network is quantised."""
    return any(type(each).__name__ in LINEAR for each in network.modules())


def _computes(device: torch.device) -> bool:
    return is_cuda(device)
