"""All C++ is compiled with warnings as errors, also for processors that this machine has not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from sourcewise.native.codes import ATTENTION, HERE, KERNELS, SEARCH
from sourcewise.native.compiled import FLAGS

FILES = sorted(HERE.glob("*/*.cpp"))
PORTABLE = [KERNELS.source, ATTENTION.source, SEARCH.source]  # what needs no AVX-512
STRICT = ("-Wall", "-Wextra", "-Werror")
# gcc 12 warns of its own headers (PR 105593), and of vectors wider than the processor's registers, which stay inside.
OF_GCC = ("-Wno-uninitialized", "-Wno-maybe-uninitialized", "-Wno-psabi")
SEARCHED = ("x86-64-v4", "alderlake", "x86-64")  # without VNNI, with 256 bits of it, without AVX2
WHOLE = [(file, "sapphirerapids") for file in FILES] + [(file, "x86-64-v3") for file in PORTABLE]
WHOLE += [(SEARCH.source, processor) for processor in SEARCHED]


@pytest.mark.parametrize(("file", "processor"), WHOLE, ids=[f"{file.stem}-{processor}" for file, processor in WHOLE])
def test_it_compiles_without_a_warning(file: Path, processor: str) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    flags = [flag for flag in FLAGS if not flag.startswith(("-O", "-march", "-shared"))]
    command = [compiler, *flags, f"-march={processor}", "-fsyntax-only", *STRICT, *OF_GCC, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if "bad value" in done.stderr and "-march" in done.stderr:
        pytest.skip(f"this g++ does not know {processor}, or is for another kind of machine")
    assert done.returncode == 0, done.stderr[:2000]


def test_a_warning_would_be_an_error(tmp_path: Path) -> None:
    (tmp_path / "it.cpp").write_text("int f(int unused) { int i; return i; }\n")
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    command = ["g++", "-fsyntax-only", *STRICT, *OF_GCC, str(tmp_path / "it.cpp")]
    assert "unused parameter" in subprocess.run(command, capture_output=True, text=True).stderr
