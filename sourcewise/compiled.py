"""C++ beside a module, compiled for this processor on first use and kept in the user's cache.

As `torch.compile` does on a CPU, this takes whatever compiler the machine has; where there is none, or the processor
lacks what the code needs, `machine_code` says no and the caller goes on in Python.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC", "-w"),
    *("-fopenmp-simd", "-mprefer-vector-width=512"),  # sums of a loop may be taken in any order where it says so
)
OF_GCC = ("-fno-tree-pre",)  # without it gcc 12 keeps the sums of products.h in memory, at half the speed
COMPILERS = ("c++", "g++", "clang++")
SECONDS = 120  # a compiler that takes longer is stuck


@functools.cache
def machine_code(source: Path, needs: tuple[str, ...] = ()) -> ctypes.CDLL | None:
    """The functions of a C++ file and the headers beside it, or None where it cannot be had.

    `needs` are flags of /proc/cpuinfo.
    """
    compiler = os.environ.get("CXX") or next((c for c in COMPILERS if shutil.which(c)), None)
    processor = _processor()
    if compiler is None or os.environ.get("SOURCEWISE_COMPILE") == "0" or not set(needs) <= set(processor.split()):
        return None
    texts = (path.read_text(encoding="utf-8") for path in sorted(source.parent.glob("*.[ch]*")))
    told = "\n".join((*texts, compiler, *FLAGS, *OF_GCC, processor, platform.platform()))
    kept = _cache() / f"{source.stem}-{hashlib.sha256(told.encode()).hexdigest()[:24]}.so"
    try:
        if not kept.is_file():
            _compile(compiler, source, kept)
        return ctypes.CDLL(str(kept))
    except (OSError, subprocess.SubprocessError):
        return None


def _compile(compiler: str, source: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=to.parent) as folder:  # beside it: a rename within a file system is whole
        fresh = Path(folder) / to.name
        command = [compiler, *FLAGS, "-o", str(fresh), str(source)]
        try:
            subprocess.run([*command, *OF_GCC], check=True, capture_output=True, timeout=SECONDS)
        except subprocess.CalledProcessError:  # clang does not know them
            subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
        fresh.replace(to)


def _cache() -> Path:
    """Where compiled code is kept: only the user may write there, since it is run."""
    home = os.environ.get("SOURCEWISE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "sourcewise"
    return Path(home).expanduser()


@functools.cache
def _processor() -> str:
    """What the processor can do: the flags of Linux's /proc/cpuinfo; elsewhere nothing is known."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")
