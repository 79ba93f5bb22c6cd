"""A lock that another process holds, one that no file system has, and a system without fcntl."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from sourcewise.errors import Notice
from sourcewise.runtime import locks
from tests.training.recipes import recipe

WITHOUT = """
import errno, subprocess, sys, types
import multiprocessing.connection, sacrebleu, torch, transformers  # these look for a system themselves
held = set()
def locking(descriptor, mode, count):
    import os
    name = os.readlink(f"/proc/self/fd/{descriptor}")
    if name in held:
        raise OSError(errno.EACCES, "Permission denied")
    held.add(name)
sys.modules["fcntl"] = None
sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
import os, signal
del signal.SIGUSR1, os.register_at_fork
import sourcewise
from sourcewise.config import Recipe
from sourcewise.training.run import locked
run = sourcewise.train(Recipe.model_validate_json(sys.argv[1]))
print(len(sourcewise.load(run.folder).generate(["ba do"])), "outputs")
print(len(sourcewise.evaluate(run.folder, sys.argv[2]).rows) > 0)
try:
    with locked(run.folder):
        pass
except sourcewise.RequestError as error:
    print(error)
"""


def test_a_second_holder_is_told(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("w") as one, path.open("w") as other:
        assert locks.hold(one) and not locks.hold(other)
    with path.open("w") as later:
        assert locks.hold(later)


def test_a_file_system_without_locks_is_told_and_not_taken_for_another_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(file: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks, "_lock", none)
    with (tmp_path / "lock").open("w") as file, pytest.warns(Notice, match=r"cannot be locked \(No locks available\)"):
        assert locks.hold(file)


def test_training_and_generation_need_nothing_that_only_unix_has(tmp_path: Path) -> None:
    """As on Windows: no fcntl, no SIGUSR1, no fork, a lock of msvcrt's kind."""
    given = recipe(tmp_path, train__steps=2, train__evaluate_every=2)
    data = str(given.data.valid.pairs)
    command = [sys.executable, "-c", WITHOUT, given.model_dump_json(), data]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("1 outputs\nTrue\n"), done.stdout
    assert "another process is training here" in done.stdout
