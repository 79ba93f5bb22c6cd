"""Where networks compute: which device there is, and whether it is the host itself."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch

from sourcewise.errors import RequestError


def choose_device(name: str, place: int | None = None) -> torch.device:
    """`auto` is the accelerator where there is one, else the CPU. Raises RequestError for one that is not there.

    `place` is the number of the accelerator of one of several processes.
    """
    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
        name = found.type
    if place is not None and name not in ("cpu", "mps"):
        if ":" in name:
            raise RequestError(f"train.device {name}: one accelerator for several processes; set {name.split(':')[0]}")
        torch.accelerator.set_device_index(place)
        name = f"{name}:{place}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RequestError(f"device {name}: not available here ({str(error).splitlines()[0][:120]})") from None
    return device


def is_host(device: torch.device | str) -> bool:
    """Whether a device is the CPU, whose memory is the host's: to look at a number there costs nothing."""
    return torch.device(device).type == "cpu"


def products_in(device: torch.device, precision: torch.dtype) -> AbstractContextManager[Any]:
    """Within: matrix products of fp32 weights on this device are computed in this precision."""
    return torch.autocast(device.type, precision)
