"""WorkerThreads: results in order, each thread with its share of the cores, errors passed on."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from sourcewise.runtime.threads import MOST_THREADS, WorkerThreads


@pytest.fixture
def two_threads() -> Iterator[None]:
    kept = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(kept)


@pytest.mark.usefixtures("two_threads")
def test_results_come_in_order_from_threads_with_a_core_each() -> None:
    workers = WorkerThreads(torch.device("cpu"))

    def work(item: int) -> tuple[int, str, int]:
        return item * item, threading.current_thread().name, torch.get_num_threads()

    found = list(workers.map(work, range(9)))
    assert [value for value, _, _ in found] == [i * i for i in range(9)]
    assert all(name.startswith("worker") and threads == 1 for _, name, threads in found)
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_an_error_in_a_thread_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        list(WorkerThreads(torch.device("cpu")).map(lambda x: 1 // x, [1, 0, 1]))


def test_an_accelerator_has_one_thread_and_a_cpu_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert WorkerThreads(torch.device("cpu")).count == MOST_THREADS
    workers = WorkerThreads(torch.device("meta"))
    assert workers.count == 1
    assert list(workers.map(lambda _: threading.current_thread().name, [0])) == [threading.current_thread().name]
