"""The device: its clock, its memory, and the ceilings that it reaches today."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

COUNTED = 5  # stretches, of which the median counts


@dataclass(frozen=True)
class Device:
    """A device; on a CPU everything is in small, for a look at whether it runs."""

    device: torch.device

    @property
    def real(self) -> bool:
        """Whether this is an accelerator."""
        return self.device.type != "cpu"

    def wait(self) -> None:
        """Until the device has done all that it was given."""
        if self.real:
            torch.accelerator.synchronize()

    def seconds(self, work: Callable[[], Any], times: int = 1) -> float:
        """Seconds of one of `times` works, the device's included."""
        self.wait()
        started = time.perf_counter()
        for _ in range(times):
            work()
        self.wait()
        return (time.perf_counter() - started) / times

    def median(self, work: Callable[[], Any], times: int = 1) -> float:
        """The median of COUNTED stretches of `times` works."""
        return statistics.median(self.seconds(work, times) for _ in range(COUNTED))

    def peak_gb(self) -> float | None:
        """The largest memory since `forget`, in GB."""
        return torch.cuda.max_memory_allocated() / 1e9 if self.device.type == "cuda" else None

    def forget(self) -> None:
        """Give back what is not used, and begin to count the peak anew."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def ceilings(on: Device, tiny: bool) -> dict[str, float]:
    """TFLOP/s of bf16 products, large and as wide as T5-base, and TB/s of a copy; random numbers, fresh each time."""
    large, narrow, copied = (256, 64, 2**16) if tiny else (8192, 768, 2**28)

    def product(rows: int, inner: int, columns: int) -> float:
        a = torch.randn(rows, inner, device=on.device).bfloat16()
        b = torch.randn(inner, columns, device=on.device).bfloat16()
        a @ b
        return 2 * rows * inner * columns / on.median(lambda: a @ b, 10) / 1e12

    data = torch.randn(copied, device=on.device)
    room = torch.empty_like(data)
    room.copy_(data)
    moved = 2 * data.numel() * data.element_size() / on.median(lambda: room.copy_(data), 10) / 1e12
    return {
        "bf16_tflops": product(large, large, large),
        "bf16_tflops_768": product(large * 8, narrow, narrow * 8 // 3),
        "copy_tb_s": moved,
    }


def described(on: Device) -> dict[str, Any]:
    """Versions and names."""
    import transformers

    name = torch.cuda.get_device_name(on.device) if on.device.type == "cuda" else platform.processor() or "CPU"
    return {"device": name, "torch": torch.__version__, "transformers": transformers.__version__}
