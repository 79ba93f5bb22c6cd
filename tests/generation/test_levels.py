"""The native search, compiled for lesser processors than this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sourcewise.native.codes import SEARCH
from sourcewise.native.compiled import LEVEL, LEVELS

HERE = Path(__file__).parent


def ask(level: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, LEVEL: level}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_its_hypotheses_are_those_of_the_search_in_python(level: str) -> None:
    lacking = set(LEVELS[level].split()) - set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    if lacking or SEARCH.why_not():
        pytest.skip(f"this processor has no {', '.join(sorted(lacking))}" if lacking else str(SEARCH.why_not()))
    done = ask(level, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "test_engine.py"))
    assert done.returncode == 0, done.stdout[-2000:]
    assert "skipped" not in done.stdout, done.stdout[-2000:]


def test_a_level_without_what_the_code_needs_says_so() -> None:
    code = "from sourcewise.native.codes import TILES; print(TILES.why_not())"
    assert ask("x86-64-v3", "-c", code).stdout.startswith("the processor has no amx_tile, amx_bf16")
    assert ask("i8080", "-c", code).stdout == "SOURCEWISE_MARCH is i8080; it may be x86-64-v3 or x86-64-v4\n"
