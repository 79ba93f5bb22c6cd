"""Trainings by several processes, started by torchrun: the training of one, wherever it ends and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import sourcewise
from sourcewise.config.files import save_recipe
from sourcewise.errors import DataWarning, Notice, RequestError
from sourcewise.training.resuming import resumed
from sourcewise.training.run import Run
from sourcewise.training.state import load_state, shards_of
from tests.commands import Bomb
from tests.training.recipes import recipe
from tests.training.worlds import MADE, environment, furthest, lines, text, torchrun, weights, written

NATS, RELATIVE = 1e-4, 1e-5  # of a step's loss · of the weights after ten steps


def sourcewise_command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    called = [sys.executable, "-m", "sourcewise", *map(str, words)]
    return subprocess.run(called, env=environment(), capture_output=True, text=True, timeout=600, check=False)


def saved(made: Any, folder: Path) -> Path:
    """The file of a recipe."""
    path = folder / f"{made.name}.yaml"
    save_recipe(made, path)
    return path


# ── the same curve ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of one process."""
    folder = tmp_path_factory.mktemp("alone")
    for path in written(folder, list(MADE)):
        sourcewise.train(path)
    return folder / "runs"


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3, 4])
def test_every_number_of_processes_gives_the_curve_of_one(world: int, alone: Path, tmp_path: Path) -> None:
    done = torchrun(world, "tests.training.launched", *written(tmp_path, list(MADE)))
    assert done.returncode == 0, done.stderr[-2000:]
    for name in MADE:
        loss, relative = furthest(alone / name, tmp_path / "runs" / name)
        assert loss <= NATS and relative <= RELATIVE, (name, loss, relative)
        ours, theirs = (lines(folder / name) for folder in (alone, tmp_path / "runs"))
        assert [line["kind"] for line in ours] == [line["kind"] for line in theirs], name


@pytest.mark.slow
@pytest.mark.parametrize(("world", "shards"), [(2, 2), (3, 3), (4, 2)])
def test_shards_change_nothing(world: int, shards: int, alone: Path, tmp_path: Path) -> None:
    names = ["plain", "everything", "contrastive", "untied"]
    done = torchrun(world, "tests.training.launched", *written(tmp_path, names, shard=shards))
    assert done.returncode == 0, done.stderr[-2000:]
    for name in names:
        loss, relative = furthest(alone / name, tmp_path / "runs" / name)
        assert loss <= NATS and relative <= RELATIVE, (name, loss, relative)
        assert not (tmp_path / "runs" / name / "state" / "state.pt").exists()


# ── the command line ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_ranks_start_one_training(tmp_path: Path) -> None:
    path = saved(text(tmp_path, name="two"), tmp_path)
    done = sourcewise_command("train", path, "--ranks", "2")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "two"
    steps = [line["step"] for line in lines(run) if line["kind"] == "train"]
    assert steps == [*range(1, 11)]
    assert done.stderr.count("step 10") == done.stdout.count("use it") == 1
    assert transformers.T5ForConditionalGeneration.from_pretrained(run / "checkpoints" / "last").num_parameters() > 0
    start = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert start["processes"] == "2"


@pytest.mark.slow
def test_a_request_that_is_wrong_is_told_in_one_line(tmp_path: Path) -> None:
    path = saved(text(tmp_path, name="two"), tmp_path)
    for words, said in (
        (("--data.valid.pairs", "/none.tsv"), "/none.tsv: no such file"),
        (("--train.shard", "3"), "train.shard: 3 shards do not divide 2 processes"),
        (("--train.shard", "2", "--model.family", "rnn"), "train.shard: Recurrent is not sharded"),
        (("--train.shard", "2", "--train.attention_mass", "0.1"), "train.attention_mass: is not for weights in shards"),
    ):
        done = sourcewise_command("train", path, "--ranks", "2", *words)
        told = [line for line in done.stderr.splitlines() if line]
        assert done.returncode == 2 and len(told) == 1 and said in told[0], done.stderr
        assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_file_that_one_process_misses_ends_all(tmp_path: Path) -> None:
    done = torchrun(2, "tests.training.failing", saved(text(tmp_path, name="two", train__steps=1000), tmp_path))
    told = [line for line in done.stderr.splitlines() if line.startswith("sourcewise: error")]
    assert told == ["sourcewise: error: clip7.npy: no such file"]
    assert "exitcode  : 2 " in done.stderr and "exitcode  : 1 " not in done.stderr


@pytest.mark.parametrize("words", [["--ranks", "0"], ["--ranks", "-2"]])
def test_a_number_of_processes_that_is_none(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from sourcewise.cli import main

    assert main(["train", "digits", *words]) == 2
    assert "--ranks should be 1 or more" in capsys.readouterr().err


def test_ranks_within_ranks_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from sourcewise.cli import main

    of = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "x"}
    for name, value in of.items():
        monkeypatch.setenv(name, value)
    assert main(["train", "digits", "--ranks", "2"]) == 2
    assert "torchrun has started this process already" in capsys.readouterr().err


# ── going on ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_to_resume_a_run_that_is_not_there_begins_it(tmp_path: Path) -> None:
    made = recipe(tmp_path, train__steps=2)
    with pytest.warns(Notice, match="no run to resume is there, so it begins"):
        run = sourcewise.train(made, resume=True)
    assert run.metrics()[0]["kind"] == "start"


def test_parts_are_those_that_a_run_began_with(tmp_path: Path) -> None:
    for name, steps in (("whole", 8), ("parts", 4)):
        made = recipe(
            tmp_path, name=name, model__dropout=0.2, train__parts=3, train__steps=steps, train__save_every=4,
            train__schedule="constant", train__evaluate_every=8,
        )  # fmt: skip
        sourcewise.train(made)
    kept = load_state(tmp_path / "runs" / "parts" / "state" / "state.pt")
    assert kept is not None and kept["parts"] == 3 and "random" not in kept
    sourcewise.train(tmp_path / "runs" / "parts", {"train.steps": 8}, resume=True)
    ours, theirs = (weights(tmp_path / "runs" / name) for name in ("whole", "parts"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("option", [{"train.shard": 2}, {"train.timeout": 30.0}])
def test_options_of_machines_may_change(option: dict[str, Any], tmp_path: Path) -> None:
    made = recipe(tmp_path)
    asked = made.model_copy(update={"train": made.train.model_copy(update={k[6:]: v for k, v in option.items()})})
    found = resumed(asked, made, option)
    assert all(getattr(found.train, name[6:]) == value for name, value in option.items())


@pytest.mark.slow
def test_a_run_goes_on_by_another_number_of_processes(tmp_path: Path) -> None:
    """Two processes, then one, then three; in replicas and in shards."""
    options = {"train__steps": 30, "train__evaluate_every": 10, "train__schedule": "constant"}
    whole = sourcewise.train(text(tmp_path, name="whole", **options))
    for name, shards in (("replicas", 1), ("shards", 2)):
        path = saved(text(tmp_path, name=name, train__shard=shards, **{**options, "train__steps": 10}), tmp_path)
        run = tmp_path / "runs" / name
        assert torchrun(2, "sourcewise", "train", path).returncode == 0
        assert (shards_of(Run(run).state) is None) == (shards == 1)
        sourcewise.train(run, {"train.steps": 20}, resume=True)
        assert Run(run).state.is_file() and shards_of(Run(run).state) is None
        words = ("--train.steps", "30", "--train.shard", "3" if shards > 1 else "1")
        done = torchrun(3, "sourcewise", "train", run, "--resume", *words)
        assert done.returncode == 0, done.stderr[-2000:]
        steps = [line["step"] for line in lines(run) if line["kind"] == "train"]
        assert steps == [*range(1, 31)]
        loss, relative = furthest(whole.folder, run)
        assert loss <= NATS and relative <= 10 * RELATIVE, (name, loss, relative)


@pytest.mark.slow
def test_a_state_in_shards_that_is_damaged_is_refused(tmp_path: Path) -> None:
    path = saved(text(tmp_path, name="two", train__shard=2, train__steps=2, train__evaluate_every=2), tmp_path)
    assert torchrun(2, "sourcewise", "train", path).returncode == 0
    run = Run(tmp_path / "runs" / "two")
    folder = shards_of(run.state)
    assert folder is not None and not list(folder.rglob("*.pt")) and not (folder / ".metadata").exists()
    (first, *_) = sorted(folder.glob("*.safetensors"))
    kept = first.read_bytes()
    import pickle

    for bad in (pickle.dumps(Bomb()), kept[: len(kept) // 2], b""):
        first.write_bytes(bad)
        with pytest.raises(RequestError, match="damaged"):
            sourcewise.train(run.folder, {"train.steps": 4}, resume=True)
        assert not Path("unpickled").exists()
    first.write_bytes(kept)
    with pytest.warns(DataWarning, match="4 instead of 2"):
        sourcewise.train(run.folder, {"train.steps": 4}, resume=True)


# ── ends ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def wait_for(log: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until a log has so many lines."""
    began = time.monotonic()
    while not (log.is_file() and len(log.read_text().splitlines()) >= count):
        assert process.poll() is None and time.monotonic() - began < 300
        time.sleep(0.05)


def processes_of(agent: int) -> list[int]:
    """The training processes that an agent has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            words = (path.parent / "cmdline").read_text()
        except OSError:
            continue
        if parent == agent and "sourcewise" in words and "\0train\0" in words:
            found.append(int(path.parent.name))
    return sorted(found)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """A recipe that trains until it is stopped, unless `--train.steps` says less."""
    often = {"train__steps": 4000, "train__evaluate_every": 4000, "train__save_every": 5}
    return saved(text(tmp_path, name="long", train__timeout=10.0, train__schedule="constant", **often), tmp_path)


def started(path: Path, *agent: str) -> subprocess.Popen[str]:
    called = [sys.executable, "-m", *agent, "sourcewise", "train", str(path)]
    return subprocess.Popen(called, env=environment(), stderr=subprocess.PIPE, text=True)


AGENT = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_at_the_same_step(number: signal.Signals, long: Path) -> None:
    called = [sys.executable, "-m", "sourcewise", "train", str(long), "--ranks", "2"]
    with subprocess.Popen(called, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        wait_for(long.parent / "runs" / "long" / "metrics.jsonl", 12, process)
        workers = processes_of(process.pid)
        os.kill(process.pid, number)
        said = process.stderr.read() if process.stderr else ""
    assert len(workers) == 2 and not any(map(alive, workers))
    (line,) = [line for line in said.splitlines() if "saved at step" in line]
    kept = load_state(long.parent / "runs" / "long" / "state" / "state.pt")
    assert process.returncode == 130 and kept is not None and f"saved at step {kept['step']};" in line


@pytest.mark.slow
def test_nobody_waits_for_a_process_that_was_stopped(long: Path) -> None:
    with started(long, *AGENT) as process:
        wait_for(long.parent / "runs" / "long" / "metrics.jsonl", 12, process)
        first, second = processes_of(process.pid)
        os.kill(second, signal.SIGSTOP)
        began = time.monotonic()
        while alive(first):
            assert time.monotonic() - began < 60
            time.sleep(0.1)
        os.kill(second, signal.SIGKILL)
        said = process.stderr.read() if process.stderr else ""
    assert said.count("process 1 of 2 (counted from 0) is gone, or did not answer for 10 s") == 1


@pytest.mark.slow
def test_nothing_stays_where_the_agent_was_killed(long: Path) -> None:
    with started(long, *AGENT) as process:
        wait_for(long.parent / "runs" / "long" / "metrics.jsonl", 12, process)
        workers = processes_of(process.pid)
        process.kill()
        began = time.monotonic()
        while any(map(alive, workers)):
            assert time.monotonic() - began < 60
            time.sleep(0.1)
    assert len(workers) == 2


@pytest.mark.slow
def test_a_run_whose_processes_are_killed_goes_on_to_the_bit(tmp_path: Path) -> None:
    """kill -9 of any process at any moment, after which torchrun starts all anew."""
    options = {"train__steps": 30, "train__evaluate_every": 10, "train__save_every": 3}
    paths = [saved(text(tmp_path, name=name, **options), tmp_path) for name in ("whole", "killed")]
    assert torchrun(2, "sourcewise", "train", paths[0]).returncode == 0
    rng, killed = np.random.default_rng(1), 0
    agent = [*AGENT[:-1], "--max-restarts", "20", "-m"]
    with started(paths[1], *agent) as process:
        log = tmp_path / "runs" / "killed" / "metrics.jsonl"
        while process.poll() is None and killed < 5:
            count = len(log.read_text().splitlines()) if log.is_file() else 0
            workers = processes_of(process.pid)
            if count > 3 + 4 * killed and len(workers) == 2:
                time.sleep(float(rng.uniform(0, 0.5)))
                os.kill(workers[int(rng.integers(2))], signal.SIGKILL)
                killed += 1
                while len(set(processes_of(process.pid)) - set(workers)) < 2 and process.poll() is None:
                    time.sleep(0.1)
            time.sleep(0.02)
        process.communicate()
    assert process.returncode == 0 and killed >= 2
    whole, other = (tmp_path / "runs" / name for name in ("whole", "killed"))
    assert lines(whole) == lines(other)
    for kept in ("last", "best"):
        one, two = ((run / "checkpoints" / kept / "model.safetensors").read_bytes() for run in (whole, other))
        assert one == two


def imported(*words: str | Path) -> set[str]:
    """The modules that Python imports for a command, by `-X importtime`."""
    called = [sys.executable, "-X", "importtime", *map(str, words)]
    done = subprocess.run(called, env=environment(), capture_output=True, text=True, check=True)
    rows = (line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:"))
    return set(rows)


@pytest.mark.slow
def test_one_process_imports_nothing_of_several(tmp_path: Path) -> None:
    """A training, its evaluations and its report: of torch.distributed not more than torch itself, and no Ray."""
    path = saved(text(tmp_path, name="one", train__steps=2, train__evaluate_every=2), tmp_path)
    training = imported("-m", "sourcewise", "train", path)
    before = imported("-c", "import torch, torch.nn.utils, torch.optim, transformers.models.t5.modeling_t5")
    assert {"sourcewise.training.loop", "sourcewise.runtime.cluster"} <= training
    several = {name for name in training - before if name.startswith(("torch.distributed", "ray"))}
    assert not several, sorted(several)
