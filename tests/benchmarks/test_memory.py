"""The memory of a step on a GPU, computed: by hand where that can be done, and in order where not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ENVIRONMENT

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "memory.py"
HOW = ("none", "light", "blocks")


@pytest.mark.slow
def test_the_table_counts_what_is_allocated(tmp_path: Path) -> None:
    words = [word for how in HOW for word in ("--only", f"tiny, {how}")]
    command = [sys.executable, "-W", "ignore", str(SCRIPT), *words, "--json", str(tmp_path / "memory.json")]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert len(lines) == 5 and "computed" in lines[0] and lines[2].startswith("| tiny | 16 × (128 → 64) | none |")
    rows = json.loads((tmp_path / "memory.json").read_text())
    assert [row["checkpointing"] for row in rows] == list(HOW)
    for row in rows:  # bf16 weights; fp32: masters, room for gradients, two moments
        assert row["held_gb"] * 1e9 == pytest.approx(18 * row["parameters"], rel=0.05)
    peaks = [row["peak_gb"] for row in rows]
    assert peaks[2] < peaks[1] < peaks[0]
    assert peaks[1] < 0.9 * peaks[0] and peaks[2] < 0.6 * peaks[0]
