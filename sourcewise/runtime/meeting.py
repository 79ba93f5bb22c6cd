"""How the processes of one start find each other in a store, which may hold what those of an earlier start left."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from sourcewise.errors import RequestError

COMING = 300.0  # seconds in which the processes of a start have come


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
