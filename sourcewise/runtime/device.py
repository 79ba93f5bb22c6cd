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
        if place is None or is_host(found):
            return found
        name = found.type
    if place is not None and name != "cpu":
        if ":" in name or name == "mps":
            problem = f"{name}: one accelerator for several processes"
            raise RequestError(f"train.device {problem}; set {'cpu' if name == 'mps' else name.partition(':')[0]}")
        name = f"{name}:{place}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        if place is not None and not is_host(device):
            torch.accelerator.set_device_index(device)
    except (RuntimeError, AssertionError) as error:
        raise RequestError(f"device {name}: not available here ({str(error).splitlines()[0][:120]})") from None
    return device


def is_host(device: torch.device | str) -> bool:
    """Whether a device is the CPU, whose memory is the host's: to look at a number there costs nothing."""
    return torch.device(device).type == "cpu"


def products_in(device: torch.device, precision: torch.dtype) -> AbstractContextManager[Any]:
    """Within: matrix products of fp32 weights on this device are computed in this precision."""
    return torch.autocast(device.type, precision)
