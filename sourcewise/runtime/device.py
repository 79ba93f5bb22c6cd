"""Where networks compute: which device there is, and whether it is the host itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
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


def device_beside(name: str, beside: int, threads: int | None = None) -> torch.device:
    """`choose_device` for one of `beside` processes that share this machine; sets how many threads this one has.

    Each has its share of the cores, since torchrun sets one thread, and an accelerator of its own. Raises RequestError.
    """
    cores = torch.get_num_threads() if beside == 1 else max(1, (os.cpu_count() or 1) // beside)
    torch.set_num_threads(threads or cores)
    return choose_device(name, int(os.environ.get("LOCAL_RANK", "0")) if beside > 1 else None)


def is_host(device: torch.device | str) -> bool:
    """Whether a device is the CPU, whose memory is the host's: to look at a number there costs nothing."""
    return torch.device(device).type == "cpu"


def is_cuda(device: torch.device) -> bool:
    """Whether a device is CUDA's, for what is written for that alone."""
    return device.type == "cuda"


def computes_bf16(device: torch.device) -> bool:
    """Whether a device is an accelerator that computes in bf16 as such, at about twice the speed of fp32 or more."""
    if is_cuda(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "xpu"


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Within, if wanted: torch takes algorithms that give the same bits every time, or raises an error."""
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS's own condition, read at its first product
    options: Any = torch.utils.deterministic
    kept, filled = torch.are_deterministic_algorithms_enabled(), options.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    options.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(kept)
        options.fill_uninitialized_memory = filled


def products_in(device: torch.device, precision: torch.dtype) -> AbstractContextManager[Any]:
    """Within: matrix products of fp32 weights on this device are computed in this precision."""
    return torch.autocast(device.type, precision)
