"""Work on a Ray cluster of two nodes, one of which is lost in mid-run: what one process gives.

Without Ray a line says how to get it, and nothing of one process asks for it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sourcewise
from sourcewise.cli import main
from tests.cli.test_shards import command, texts
from tests.commands import Models
from tests.comparison.test_compare import OTHER, written
from tests.data.test_windows import parquet
from tests.training.recipes import pairs_file
from tests.training.test_ranks import NATS, RELATIVE, saved
from tests.training.worlds import environment, furthest, lines, text

RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not RAY, reason="ray is not installed: pip install 'sourcewise[cluster]'")
COMMANDS = (
    "generate {text} good.tsv -o out.txt --ray auto",
    "evaluate {text} good.tsv --ray auto",
    "compare tiny.yaml --ray auto",
    "train tiny.yaml --ray auto --workers 2",
)


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words.split()[0])
def test_the_extra_is_named(
    words: str, refused: Callable[..., str], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    written(here, OTHER)
    if words.startswith("train"):
        tree = (here / "tiny.yaml").read_text()
        (here / "tiny.yaml").write_text(tree[: tree.index("compare:")])
    said = refused(words, begun=True)
    assert said == "--ray auto takes ray, which is not installed: pip install 'sourcewise[cluster]'"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train digits --workers 2", "--ray ADDRESS and --workers N go together"),
        ("train digits --ray auto", "--ray ADDRESS and --workers N go together"),
        ("train digits --ray auto --workers 3..2", "--workers 3..2: is a number, such as 4, or two, such as 2..8"),
        ("train digits --ray auto --workers many", "--workers many: is a number, such as 4, or two, such as 2..8"),
        ("generate {text} good.tsv --ray auto --shard 0/2 -o o", "a cluster takes all shares"),
    ],
)
def test_what_does_not_go_together(words: str, said: str, refused: Callable[..., str]) -> None:
    assert said in refused(words)


# ── a cluster ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes of one processor each; the second may be lost."""
    from ray.cluster_utils import Cluster

    # Ray's workers are nicer than all else, and would wait for whatever runs beside the tests.
    os.environ.update({**environment(), "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"})
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    found.second = found.add_node(num_cpus=1)
    found.wait_for_nodes()
    yield found
    found.shutdown()


def lose(cluster: Any) -> None:
    cluster.remove_node(cluster.second, allow_graceful=False)


def started(cluster: Any, *words: str | Path) -> subprocess.Popen[str]:
    called = [sys.executable, "-m", *map(str, words), "--ray", cluster.address]
    return subprocess.Popen(called, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=1500)
    assert process.returncode == 0, err[-4000:]
    return out + err


def wait_for(there: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 600) -> None:
    until = time.monotonic() + seconds
    while not there():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "it takes too long"
        time.sleep(0.05)


def actors(name: str) -> int:
    """How many processes of Ray with such a name there are."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += path.read_bytes().startswith(f"ray::{name}".encode())
        except OSError:
            continue
    return found


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("options", ["--beams 1", "--sample --seed 3"])
def test_outputs_are_those_of_one_process(cluster: Any, models: Models, tmp_path: Path, options: str) -> None:
    path, whole = texts(tmp_path, 3000), tmp_path / "whole"
    rows = path.read_text().splitlines()
    for number in range(3):
        parquet(tmp_path / f"{number}.parquet", rows[1000 * number : 1000 * (number + 1)])
    assert main(command(models, path, whole, options)) == 0
    out = tmp_path / "out"
    process = started(
        cluster, "tests.generation.in_small_windows", *command(models, f"{tmp_path}/*.parquet", f"{out}/", options)
    )
    wait_for(lambda: len(list(out.glob("*.txt"))) > 5 and actors("MapWorker") > 1, process)
    lose(cluster)
    before = len(list(out.glob("*.txt")))
    said = ended(process)
    pieces = sorted(out.iterdir())
    assert before < len(pieces) == 375 and f"{out}/: 375 windows are there" in said
    assert b"".join(each.read_bytes() for each in pieces) == whole.read_bytes()


@needs_ray
@pytest.mark.slow
def test_figures_are_those_of_one_process(cluster: Any, models: Models, tmp_path: Path) -> None:
    data = pairs_file(tmp_path, "test.tsv", 4000, 7)
    words = ["evaluate", str(models.text), str(data), "--beams", "4"]
    assert main([*words, "-o", str(tmp_path / "one")]) == 0
    process = started(cluster, "sourcewise", *words, "-o", tmp_path / "two")
    wait_for(lambda: actors("MapWorker") > 0, process)
    time.sleep(2)
    assert process.poll() is None
    lose(cluster)
    ended(process)
    ours, theirs = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two"))
    assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}
    assert (tmp_path / "one" / "translations.tsv").read_bytes() == (tmp_path / "two" / "translations.tsv").read_bytes()


@needs_ray
@pytest.mark.slow
def test_a_comparison_is_that_of_one_process(cluster: Any, tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    for folder in (alone, together):
        folder.mkdir()
    sourcewise.compare(written(alone, OTHER, steps=300))
    runs = together / "runs" / "tiny"
    process = started(cluster, "sourcewise", "compare", written(together, OTHER, steps=300), "--train.save_every", "20")
    logs = [runs / name / "metrics.jsonl" for name in ("plain-0", "other-0")]
    wait_for(lambda: all(log.is_file() and len(log.read_text().splitlines()) > 30 for log in logs), process)
    lose(cluster)
    ended(process)
    tables = []
    for folder in (alone, together):
        tree = json.loads((folder / "runs" / "tiny" / "comparison.json").read_text().replace(str(folder), ""))
        for line in tree["lines"]:
            line.pop("tokens_per_s"), line.pop("minutes")
        tables.append(tree)
    assert tables[0] == tables[1]


@needs_ray
@pytest.mark.slow
def test_a_training_goes_on_where_a_machine_is_lost(cluster: Any, tmp_path: Path) -> None:
    options = {"train__steps": 300, "train__evaluate_every": 300, "train__save_every": 10}
    whole = sourcewise.train(text(tmp_path, name="whole", train__schedule="constant", **options))
    path = saved(text(tmp_path, name="two", train__schedule="constant", train__timeout=20.0, **options), tmp_path)
    run = tmp_path / "runs" / "two"
    process = started(cluster, "sourcewise", "train", path, "--workers", "1..2")
    wait_for(lambda: (run / "metrics.jsonl").is_file() and len(lines(run)) > 30, process)
    lose(cluster)
    said = ended(process)
    assert "use it" in said
    assert [line["step"] for line in lines(run) if line["kind"] == "train"] == [*range(1, 301)]
    loss, relative = furthest(whole.folder, run)
    assert loss <= NATS and relative <= 100 * RELATIVE, (loss, relative)


@needs_ray
@pytest.mark.slow
def test_a_request_that_is_wrong_is_told_once(cluster: Any, tmp_path: Path) -> None:
    path = saved(text(tmp_path, name="two", train__preflight=True), tmp_path)
    process = started(cluster, "sourcewise", "train", path, "--workers", "2", "--train.shard", "3")
    said = process.communicate(timeout=900)[1]
    told = [line for line in said.splitlines() if line.startswith("sourcewise: error")]
    assert process.returncode == 2 and len(told) == 1 and "3 shards do not divide 2 processes" in told[0], said
