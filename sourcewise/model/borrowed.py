"""Weights that a network has from another folder, which keeps them: neither checkpoints nor states hold them again.

They are the base of adapters and a pretrained encoder before the bridge, as far as they do not learn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sourcewise.model.inputs.source_encoder import encoder_of
from sourcewise.model.network import Seq2Seq

VALUES = 64  # of each tensor in a digest, at fixed places


def borrowed(network: Seq2Seq) -> dict[str, nn.Parameter]:
    """Name in the network → frozen parameter, of those that stay in the folder they are from."""
    encoder, adapters = encoder_of(network), network.adapters
    kept = [] if encoder is None or encoder.how == "whole" else encoder.given()  # a whole one is in every checkpoint
    if adapters is not None:
        new = {id(parameter) for parameter in adapters.own()}
        kept += [parameter for parameter in network.body.parameters() if id(parameter) not in new]
    held = {id(parameter) for parameter in kept if not parameter.requires_grad}
    return {name: parameter for name, parameter in network.named_parameters() if id(parameter) in held}


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A digest of tensors to the bit: of the sum of all their bytes, and of some at fixed places; "" of none."""
    found = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        raw = tensor.detach().contiguous().flatten().view(torch.uint8)
        places = torch.linspace(0, max(0, len(raw) - 1), min(len(raw), VALUES), dtype=torch.float64).long()
        whole = [int(each.sum(dtype=torch.int64)) for each in _words(raw)]
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} {whole}".encode())
        found.update(raw[places.to(raw.device)].cpu().numpy().tobytes())
    return found.hexdigest() if tensors else ""


def _words(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Bytes as whole numbers of 32 bits, and those that are left: integers have one sum in any order."""
    cut = len(raw) // 4 * 4
    return raw[:cut].view(torch.int32), raw[cut:]
