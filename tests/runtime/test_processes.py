"""Workers: results in order from other processes, errors and deaths told."""

from __future__ import annotations

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from sourcewise.cli import main
from sourcewise.runtime.processes import map_in_processes, refuse_ranks, worker_count
from sourcewise.runtime.ranks import LAUNCHED

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")


def test_results_come_in_order_from_other_processes_with_a_thread_each() -> None:
    big = torch.arange(10)  # what a function holds needs no copy

    def work(piece: int) -> tuple[int, int, int]:
        return int(big[piece]), os.getpid(), torch.get_num_threads()

    found = list(map_in_processes(work, 7, 2))
    assert [value for value, _, _ in found] == list(range(7))
    assert os.getpid() not in {pid for _, pid, _ in found}
    assert {threads for _, _, threads in found} == {1}


def test_one_worker_is_the_caller_itself() -> None:
    assert list(map_in_processes(lambda _: os.getpid(), 3, 1)) == [os.getpid()] * 3
    assert list(map_in_processes(lambda _: os.getpid(), 1, 8)) == [os.getpid()]
    assert list(map_in_processes(lambda _: 0, 0, 8)) == []


def test_a_worker_has_no_workers_and_an_accelerator_none() -> None:
    assert list(map_in_processes(lambda _: worker_count(torch.device("cpu")), 2, 2)) == [1, 1]
    assert worker_count(torch.device("meta")) == 1


def test_beside_another_main_thread_nothing_is_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert worker_count(torch.device("cpu")) == 4
    with monkeypatch.context() as patch:  # as torchrun sets them: a fork would copy the sockets of the processes
        for name in LAUNCHED:
            patch.setenv(name, "2")
        assert worker_count(torch.device("cpu")) == 1
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(worker_count, torch.device("cpu")).result() == 1


def test_an_error_is_raised_and_a_death_is_told() -> None:
    with pytest.raises(ZeroDivisionError):
        list(map_in_processes(lambda piece: 1 // piece, 2, 2))
    with pytest.raises(RuntimeError, match="worker process died"):
        list(map_in_processes(lambda _: os.kill(os.getpid(), signal.SIGKILL), 2, 2))


def test_a_comparison_that_a_launcher_starts_many_times_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert main(["compare", "bridges"]) == 2
    told = "started 4 times (WORLD_SIZE), by torchrun or the like; a comparison is started once"
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("WORLD_SIZE", "1")  # as torchrun --nproc-per-node 1 has it
    refuse_ranks()
