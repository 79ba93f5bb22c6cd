"""A network put where it is to compute."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sourcewise.model import attention
from sourcewise.native.install import install
from sourcewise.runtime.device import is_host


def place(network: Any, device: torch.device | str, dtype: torch.dtype | None = None) -> Any:
    """Move a network to a device, in a precision, and let it compute as is fastest there; gives the network."""
    if not isinstance(network, nn.Module):
        return network
    network.to(device, dtype)
    attention.choose(network, "eager" if is_host(device) else "sdpa")
    if is_host(device):
        install(network)
    return network
