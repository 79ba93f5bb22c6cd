"""Places a network on a device, with the fastest implementations there."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sourcewise.model import attention
from sourcewise.native.install import install
from sourcewise.runtime.device import is_host


def place(network: Any, device: torch.device | str, dtype: torch.dtype | None = None) -> Any:
    """Move a network to a device and a precision, and choose its implementations there; returns the network."""
    if not isinstance(network, nn.Module):
        return network
    network.to(device, dtype)
    attention.choose(network, "eager" if is_host(device) else "sdpa")
    if is_host(device):
        install(network)
    return network
