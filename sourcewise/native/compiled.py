"""C++ compiled for this processor on first use, and kept in the user's cache.

As `torch.compile` does on a CPU, this takes whatever compiler the machine has. Where there is none, or the processor
lacks what the code needs, `load` says no, `why_not` says why, and the caller goes on in Python. A compiler that fails
is a warning besides.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from sourcewise.errors import tell

FLAGS = (
    *("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC", "-fvisibility-inlines-hidden"),
    *("-fopenmp-simd", "-mprefer-vector-width=512"),  # sums of a loop may be taken in any order where it says so
)
LEVEL = "SOURCEWISE_MARCH"  # of the environment: compile for a lesser processor, to see how fast it would be
LEVELS = {  # what of the flags of /proc/cpuinfo that `Code.needs` asks for such a processor has
    "x86-64-v3": "avx2 fma",
    "x86-64-v4": "avx2 fma avx512f avx512bw avx512dq avx512vl",
}
OF_GCC = ("-fno-tree-pre",)  # without it gcc 12 keeps the sums of products.h in memory, at half the speed
COMPILERS = ("c++", "g++", "clang++")
SECONDS = 120  # a compiler that takes longer is stuck
DAYS = 60  # what was not used for so long is taken out of the cache
OFF = "SOURCEWISE_COMPILE is 0"


@dataclass(frozen=True)
class Code:
    """A C++ file with the headers beside it, and the flags of /proc/cpuinfo without which it is not compiled."""

    name: str
    what: str
    source: Path
    needs: tuple[str, ...] = ()

    def load(self) -> ctypes.CDLL | None:
        """Its functions; None where they cannot be had."""
        found = _loaded(self.source, self.needs)
        return None if isinstance(found, str) else found

    def why_not(self) -> str | None:
        """Why this machine goes on without it, in words; None where it is compiled and loaded (now, if need be)."""
        found = _loaded(self.source, self.needs)
        return found if isinstance(found, str) else None


@functools.cache
def _loaded(source: Path, needs: tuple[str, ...]) -> ctypes.CDLL | str:
    """The functions, or why there are none; told as a warning where something failed that should have worked."""
    if os.environ.get("SOURCEWISE_COMPILE") == "0":
        return OFF
    level = os.environ.get(LEVEL)
    if level and level not in LEVELS:
        return f"{LEVEL} is {level}; it may be {' or '.join(LEVELS)}"
    flags = (*FLAGS, f"-march={level or 'native'}")
    processor = LEVELS[level] if level else _processor()
    if lacking := [flag for flag in needs if flag not in processor.split()]:
        return f"the processor has no {', '.join(lacking)}" if processor else "only Linux tells what the processor has"
    if (compiler := os.environ.get("CXX") or next((c for c in COMPILERS if shutil.which(c)), None)) is None:
        return f"no C++ compiler ({', '.join(COMPILERS)})"
    texts = (path.read_text(encoding="utf-8") for path in sorted(source.parent.glob("*.[ch]*")))
    of = "\n".join((*texts, compiler, *flags, *OF_GCC, processor, platform.platform()))
    kept = user_cache() / f"{source.stem}-{hashlib.sha256(of.encode()).hexdigest()[:24]}.so"
    try:
        if not kept.is_file():
            _compile([compiler, *flags], source, kept)
            _clear(kept)
        found = ctypes.CDLL(str(kept))
    except (OSError, subprocess.SubprocessError) as error:
        why = _reason(error, compiler)
        tell(f"native code ({source.name}) is not used, and what it does is slower: {why}")
        return why
    with contextlib.suppress(OSError):  # a cache that cannot be written can be read
        os.utime(kept)
    return found


def _compile(compiler: list[str], source: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=to.parent) as folder:  # beside it: a rename within a file system is whole
        fresh = Path(folder) / to.name
        command = [*compiler, "-o", str(fresh), str(source)]
        try:
            _run([*command, *OF_GCC])
        except subprocess.CalledProcessError:  # clang does not know them
            _run(command)
        fresh.replace(to)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=SECONDS, text=True, errors="replace")


def _reason(error: Exception, compiler: str) -> str:
    """What went wrong, in a line."""
    if isinstance(error, subprocess.CalledProcessError):
        said = str(error.stderr or error.stdout or "").splitlines()
        first = next((line for line in said if "error" in line.lower()), said[0] if said else "it says nothing")
        return f"{compiler} failed: {first.strip()[:200]}"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"{compiler} took longer than {SECONDS} seconds"
    if isinstance(error, FileNotFoundError) and error.filename == compiler:
        return f"{compiler}: no such compiler (CXX)"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror} (SOURCEWISE_CACHE names another folder for it)"
    return str(error)[:200]


def _clear(kept: Path) -> None:
    """Take out what older versions of this code left, where nobody used it lately."""
    for other in kept.parent.glob(f"{kept.name.rpartition('-')[0]}-*.so"):
        with contextlib.suppress(OSError):
            if other != kept and time.time() - other.stat().st_mtime > DAYS * 86_400:
                other.unlink()


def user_cache() -> Path:
    """The folder for what can be made again: only the user may write there, since compiled code is run from it."""
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
