"""Runs the trainings of a comparison, each in its own process, one or several at a time.

A process writes its output to `logs/NAME.log`. If the comparison is stopped or killed, its processes save their states
and end; a new start resumes each of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Generator, Sequence
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

from sourcewise.comparison.finished import State, changed_key, state_of, write_nats
from sourcewise.comparison.plan import Planned
from sourcewise.config import Recipe
from sourcewise.errors import RequestError
from sourcewise.runtime.cluster import Machines, as_tasks
from sourcewise.runtime.signals import ctrl_c_ignored
from sourcewise.training.run import Run

POLL_SECONDS = 1.0  # between two checks of the processes
PARENT_DIED = 1  # PR_SET_PDEATHSIG of prctl(2)
Ends = Generator[tuple[Planned, str | None], None, None]  # trainings as they end, with an error or None


class Train(Protocol):
    """A function that trains a recipe: `sourcewise.train`."""

    def __call__(self, recipe: Recipe, *, resume: bool, overwrite: bool) -> Run:
        """Train into the run folder and evaluate."""


class Watcher(Protocol):
    """An observer of the running trainings."""

    def polled(self, running: Sequence[Planned]) -> None:
        """Called every second with the running trainings."""


def settle(planned: Sequence[Planned], *, overwrite: bool = False) -> dict[str, State]:
    """Name of a training → state. Raises RequestError for a run of another recipe, unless `overwrite`."""
    states = {each.name: state_of(each) for each in planned}
    for each in planned:
        if states[each.name] == "other" and not overwrite:
            changed = changed_key(each, Run(each.folder).recipe)
            raise RequestError(
                f"{each.folder}: was trained by another recipe ({changed}); replace such runs with --overwrite, "
                "or set --name"
            )
    return states


def run_all(
    planned: Sequence[Planned], states: dict[str, State], train: Train, jobs: int, folder: Path, watcher: Watcher
) -> Ends:
    """Train all planned, `jobs` at a time; yields each as it ends, with its error or None.

    After a KeyboardInterrupt the running trainings save their states before it is raised.
    """
    waiting, running = deque(planned), dict[BaseProcess, Planned]()
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                each = waiting.popleft()
                running[_started(each, states[each.name], train, logs)] = each
            wait([process.sentinel for process in running], timeout=POLL_SECONDS)
            watcher.polled(list(running.values()))
            for process in [p for p in running if not p.is_alive()]:
                each = running.pop(process)
                yield each, _last_line(logs / f"{each.name}.log") if process.exitcode else None
    finally:
        _stop(list(running))


def run_on_cluster(
    machines: Machines, planned: Sequence[Planned], train: Train, folder: Path, watcher: Watcher
) -> Ends:
    """`run_all` by the machines of a Ray cluster, a task for each training; one that is lost is resumed elsewhere."""
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    cpus = max((each.recipe.train.threads or 1 for each in planned), default=1)
    yield from as_tasks(machines, partial(_train_elsewhere, train, logs), planned, cpus, watcher.polled)


def _train_elsewhere(train: Train, logs: Path, planned: Planned) -> None:
    """Train one in a task, from the state that its folder has now; all output goes to the log."""
    log = (logs / f"{planned.name}.log").open("a", encoding="utf-8", buffering=1)
    with log as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        try:
            train_one(planned, state_of(planned), train)
        except KeyboardInterrupt as stop:
            raise RequestError(str(stop)) from None


def _started(planned: Planned, state: State, train: Train, logs: Path) -> BaseProcess:
    """Start the process of a training. It ignores Ctrl-C: this process stops it once, by SIGTERM."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_train, args=(train, planned, state, logs / f"{planned.name}.log"))
    with ctrl_c_ignored():  # inherited by the process
        process.start()
    return process


def _train(train: Train, planned: Planned, state: State, log: Path) -> None:
    """Main function of a process: all output goes to the log; the exit status is 0 if the training succeeded."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # a terminal's Ctrl-C does not reach it
    if sys.platform == "linux":
        signal.signal(signal.SIGUSR1, _end_once)
        ctypes.CDLL(None).prctl(PARENT_DIED, signal.SIGUSR1)
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    try:
        train_one(planned, state, train)
    except KeyboardInterrupt as stop:
        print(stop, file=sys.stderr)
        sys.exit(130)
    except RequestError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def train_one(planned: Planned, state: State, train: Train) -> None:
    """Train one of a comparison to its end, in this process."""
    write_nats(train(planned.recipe, resume=state == "interrupted", overwrite=state == "other"))


def _end_once(*_: object) -> None:
    """The kernel may report the parent's death once per thread; a second SIGTERM would interrupt saving."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    os.kill(os.getpid(), signal.SIGTERM)


def _stop(processes: Sequence[BaseProcess]) -> None:
    """Stop processes by SIGTERM, so that they save, and wait; a Ctrl-C while waiting kills them."""
    for process in processes:
        process.terminate()
    try:
        for process in processes:
            process.join()
    except KeyboardInterrupt:
        for process in processes:
            process.kill()
        raise


def _last_line(log: Path) -> str:
    """The last line of a training's log."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1][:400] if lines else "it said nothing"
