"""Processes of one start meet in a store that holds what earlier ones left; here they are threads."""

from __future__ import annotations

import threading
import time

import pytest
import torch.distributed as dist

from sourcewise.errors import RequestError
from sourcewise.runtime import meeting as module
from sourcewise.runtime.meeting import met


@pytest.mark.parametrize("world", [2, 3, 5])
def test_processes_of_a_start_meet_whatever_an_earlier_one_left(world: int) -> None:
    """Also where a process of an earlier start came no further than its hello."""
    store, names = dist.HashStore(), []
    for start in range(3):
        store.set("hello/1", f"one that is gone, {start}")
        found: list[str] = [""] * world

        def meet(rank: int, found: list[str] = found) -> None:
            time.sleep(0.02 * ((rank * 7) % world))
            found[rank] = met(store, rank, world)

        threads = [threading.Thread(target=meet, args=(rank,)) for rank in range(world)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(set(found)) == 1 and found[0]
        names.append(found[0])
    assert len(set(names)) == 3


def test_a_process_that_does_not_come_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMING", 0.1)
    for rank in range(2):
        with pytest.raises(RequestError, match=r"has not come within 0\.1 s of its start"):
            met(dist.HashStore(), rank, 2)
