"""What a run was made with: versions and hardware, for its first line and its report."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from pathlib import Path

import torch

PACKAGES = ("sourcewise", "torch", "transformers", "tokenizers", "sentencepiece", "sacrebleu", "numpy")


def machine(device: torch.device) -> dict[str, str]:
    """Names and values to read, in the order in which they are told."""
    threads = torch.get_num_threads()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "began": time.strftime("%Y-%m-%d %H:%M"),
        "device": f"{device.type} ({name}), {threads} thread{'' if threads == 1 else 's'}",
        "machine": f"{os.cpu_count()} cores, {_memory()}{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{package: version for package in PACKAGES if (version := _version(package))},
    }


def _processor() -> str:
    """The processor's own name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB, "
    except (AttributeError, ValueError, OSError):  # not everywhere
        return ""


def _version(package: str) -> str:
    if package == "torch":
        return str(torch.__version__)  # with its build: +cpu, +cu128
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
