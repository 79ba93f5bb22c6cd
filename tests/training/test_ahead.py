"""Features that are read from files are read ahead of the step that they are for; nothing else changes."""

from __future__ import annotations

import io
import os
import tarfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sourcewise
from sourcewise.api import prepare
from sourcewise.config import Recipe
from sourcewise.data.formats import shards
from sourcewise.training.ahead import Ahead
from sourcewise.training.run import Run
from tests.diagnosis.rules.leaking import clips, sentences, walks

TINY = {"steps": 7, "batch_size": 8, "evaluate_every": 3, "preflight": False, "parts": 1}


def planned(folder: Path, name: str, cache_gb: float, **changes: Any) -> Recipe:
    """A training on clips, and on a set in shards if there is one."""
    folder.mkdir(exist_ok=True)
    tree = clips(folder, walks(40, 3), valid=walks(10, 4)) if not (folder / "train.tsv").exists() else None
    if tree is None:
        sets = {
            use: {"manifest": str(folder / f"{use}.tsv"), "features": str(folder / use)} for use in ("train", "valid")
        }
        tree = {"data": sets, "model": {"d_model": 8, "d_ff": 8, "heads": 1, "encoder_layers": 1, "decoder_layers": 1}}
    tree["data"] |= {"vocabulary": 200, "cache_gb": cache_gb, **changes.pop("data", {})}
    return Recipe.model_validate({**tree, "name": name, "output": str(folder / "runs"), "train": {**TINY, **changes}})


def weights(run: Run) -> bytes:
    return (run.last / "model.safetensors").read_bytes()


def test_a_training_from_files_is_the_one_from_memory(tmp_path: Path) -> None:
    """Augmentation is drawn by example and epoch, not by whatever thread reads first."""
    noise = {"augment": {"noise": 0.1, "time_masks": 1}}
    memory = sourcewise.train(planned(tmp_path, "memory", 1.0, **noise))
    files = sourcewise.train(planned(tmp_path, "files", 0.0, **noise))
    assert weights(memory) == weights(files)


def test_only_what_is_read_from_files_is_read_ahead(tmp_path: Path) -> None:
    learners = {}
    for name, cache in (("memory", 1.0), ("files", 0.0)):
        recipe = planned(tmp_path, name, cache)
        learners[name] = prepare(recipe, Run(tmp_path / name)).learner
    assert learners["memory"].ahead is None and isinstance(learners["files"].ahead, Ahead)


def test_the_next_step_is_read_while_this_one_is_computed(tmp_path: Path) -> None:
    learner = prepare(planned(tmp_path, "files", 0.0), Run(tmp_path / "run")).learner
    threads: list[str] = []
    read = learner.plan.examples.dataset.read
    assert read is not None

    def watched(index: int) -> np.ndarray:
        threads.append(threading.current_thread().name)
        return read(index)

    learner.plan.examples.dataset.read = watched
    steps = learner.plan.steps(learner.at)
    learner.learn(next(steps))
    assert learner.ahead is not None
    learner.ahead.settle()
    assert len(threads) == 16 and all(name.startswith("batches") for name in threads)  # this step, and the next


def test_a_fork_waits_until_nothing_is_read(tmp_path: Path) -> None:
    """Else a child might wait for ever for a lock that a reading thread held."""
    learner = prepare(planned(tmp_path, "files", 0.0), Run(tmp_path / "run")).learner
    done = threading.Event()
    plain = learner.plan.batch

    def slow(rows: Any) -> Any:
        done.wait(0.3)
        return plain(rows)

    learner.plan.batch = slow  # type: ignore[method-assign]
    assert learner.ahead is not None
    learner.ahead.parts(next(learner.plan.steps(learner.at)), learner.at)
    assert not all(future.done() for future in learner.ahead._made_soon)
    if (child := os.fork()) == 0:
        os._exit(0 if all(future.done() for future in learner.ahead._made_soon) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_killed_training_from_files_goes_on_exactly(tmp_path: Path) -> None:
    whole = sourcewise.train(planned(tmp_path, "whole", 0.0, save_every=1))
    recipe = planned(tmp_path, "killed", 0.0, save_every=1)

    class Stop:
        def started(self, run: Any, step: int, total: int) -> None: ...
        def evaluated(self, line: Any) -> None: ...
        def stopped(self, run: Any, finished: bool) -> None: ...
        def stepped(self, step: int, line: Any) -> None:
            if step == 5:
                raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        sourcewise.train(recipe, listeners=[Stop()])
    assert weights(sourcewise.train(recipe, resume=True)) == weights(whole)


def in_shards(folder: Path, matrices: list[np.ndarray], texts: list[str], of: int = 15) -> str:
    """Shards as WebDataset writes them."""
    names = []
    for number, start in enumerate(range(0, len(matrices), of)):
        names.append(folder / f"train-{number:03d}.tar")
        with tarfile.open(names[-1], "w") as file:
            for i in range(start, min(start + of, len(matrices))):
                held = io.BytesIO()
                np.save(held, matrices[i])
                for ending, data in (("npy", held.getvalue()), ("txt", texts[i].encode())):
                    member = tarfile.TarInfo(f"train{i}.{ending}")
                    member.size = len(data)
                    file.addfile(member, io.BytesIO(data))
    return str(folder / f"train-{{000..{len(names) - 1:03d}}}.tar")


def test_shards_are_read_where_they_lie_and_train_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither opening them nor a batch reads a member as a whole."""
    memory = sourcewise.train(planned(tmp_path, "memory", 1.0))
    given = in_shards(tmp_path, walks(40, 3), sentences(40, 500))
    read = [0]
    plain = shards.Member.read

    def counted(member: shards.Member) -> bytes:
        read[0] += member.ending == ".npy"
        return plain(member)

    monkeypatch.setattr(shards.Member, "read", counted)
    valid = {"manifest": str(tmp_path / "valid.tsv"), "features": str(tmp_path / "valid")}
    streamed = sourcewise.train(planned(tmp_path, "shards", 0.0, data={"train": {"manifest": given}, "valid": valid}))
    assert read == [0] and weights(streamed) == weights(memory)
