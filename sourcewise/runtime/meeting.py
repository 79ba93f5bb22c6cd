"""How the processes that torchrun starts find each other in its store, also those of a later start in the same store."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

from sourcewise.errors import RequestError

SHARED = "TORCHELASTIC_USE_AGENT_STORE"  # whether the store is the agent's, which outlives what it starts
COMING = 300.0  # seconds in which the processes of a start have come
MEETINGS = itertools.count()  # each has its keys in the store


def torchruns_store() -> tuple[Any, int, int]:
    """Torchrun's store, this process's number, and how many there are. Raises RequestError if it is not reached."""
    import torch.distributed as dist

    try:
        store, rank, world = next(iter(dist.rendezvous("env://", timeout=timedelta(seconds=120))))
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        problem = f"the other processes are not there: {str(error).splitlines()[0][:120]}"
        raise RequestError(f"{where} (MASTER_ADDR, MASTER_PORT): {problem}") from None
    # torch's own prefix is the count of restarts, which agents of several hosts count apart: after one has lost its
    # peer they are never equal again.
    while (inner := getattr(store, "underlying_store", None)) is not None:
        store = inner
    return store, rank, world


def kept_in(store: Any) -> Any:
    """The part of torchrun's store that outlives processes which it starts anew, with all that they said."""
    import torch.distributed as dist

    return dist.PrefixStore(f"sourcewise/{next(MEETINGS)}", store)


def met(store: Any, rank: int, world: int) -> str:
    """A name that the processes of one start share, and those of no other start of the same store.

    The first process welcomes whoever says hello, by names that are new in each process: what a process of an earlier
    start left in the store is welcomed, too, but never answers. Raises RequestError for a process that does not come.
    """
    mine, until = uuid4().hex, time.monotonic() + COMING
    if rank:
        store.set(f"hello/{rank}", mine)
        _until(lambda: store.check([f"welcome/{mine}"]), until, "process 0")
        name = str(store.get(f"welcome/{mine}").decode())
        store.set(f"here/{name}/{rank}", "")
        return name
    missing = set(range(1, world))

    def all_here() -> bool:
        for other in sorted(missing):
            if store.check([f"here/{mine}/{other}"]):
                missing.discard(other)
            elif store.check([f"hello/{other}"]):
                store.set(f"welcome/{store.get(f'hello/{other}').decode()}", mine)
        return not missing

    _until(all_here, until, f"one of the {world} processes")
    return mine


def _until(there: Callable[[], bool], until: float, who: str) -> None:
    """Wait until something is there. Raises RequestError where it is not in time."""
    pause = 0.001
    while not there():
        if time.monotonic() > until:
            raise RequestError(f"{who} has not come within {COMING:g} s of its start; see what ended it")
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
