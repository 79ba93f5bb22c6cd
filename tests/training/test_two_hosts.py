"""A training by two hosts, which are network namespaces: the curve of one process, also where their link is cut."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sourcewise
from tests.training.test_ranks import NATS, RELATIVE, saved
from tests.training.worlds import environment, furthest, lines, text

SCRIPT = Path(__file__).with_name("two_hosts.sh")
STEPS: dict[str, Any] = {
    "train__steps": 400,
    "train__evaluate_every": 400,
    "train__save_every": 20,
    "train__schedule": "constant",
}
STEPS |= {
    "train__learning_rate": 1e-4
}  # at 1e-3 the last digits of sums in another order are 1e-3 nats after 400 steps


def why_not() -> str:
    """Why there can be no namespaces here; empty if there can."""
    if sys.platform != "linux" or os.geteuid():
        return "network namespaces are made by root, on Linux"
    if not shutil.which("ip") or not shutil.which("tc"):
        return "there is no ip or tc (iproute2)"
    made = subprocess.run(["ip", "netns", "add", "probe-of-tests"], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"ip netns add: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", "probe-of-tests"], check=False)
    return ""


@pytest.fixture(scope="module", autouse=True)
def namespaces() -> None:
    if why := why_not():
        pytest.skip(why)


def two_hosts(*words: str | Path) -> subprocess.CompletedProcess[str]:
    called = ["bash", str(SCRIPT), *map(str, words)]
    given = {**environment(), "PYTHON": sys.executable}
    return subprocess.run(called, env=given, capture_output=True, text=True, timeout=900, check=False)


@pytest.mark.slow
def test_two_hosts_give_the_curve_of_one(tmp_path: Path) -> None:
    whole = sourcewise.train(text(tmp_path, name="whole"))
    done = two_hosts(saved(text(tmp_path, name="hosts"), tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    loss, relative = furthest(whole.folder, tmp_path / "runs" / "hosts")
    assert loss <= NATS and relative <= RELATIVE, (loss, relative)


@pytest.mark.slow
def test_a_link_that_is_cut_ends_no_training(tmp_path: Path) -> None:
    whole = sourcewise.train(text(tmp_path, name="whole", **STEPS))
    run = tmp_path / "runs" / "hosts"
    path = saved(text(tmp_path, name="hosts", train__timeout=10.0, **STEPS), tmp_path)
    done = two_hosts(path, run / "metrics.jsonl", "60")
    assert done.returncode == 0, done.stderr[-4000:]
    assert "the link is down" in done.stderr
    assert [line["step"] for line in lines(run) if line["kind"] == "train"] == [*range(1, 401)]
    loss, relative = furthest(whole.folder, run)
    assert loss <= NATS and relative <= 100 * RELATIVE, (loss, relative)
