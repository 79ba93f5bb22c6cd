"""The processes of one training, which torchrun starts: who they are, and how they agree.

```
ranks = join()                          one process, or one of several that torchrun started
with ranks.agreed(): …                  an error on any process ends the block on all, told by one
found = ranks.first(function)           what the first process alone does; the others wait for its result
ranks.sum(tensor)                       the sum over all processes, in place
```
They meet at torchrun's store, where each is heard every second: whoever waits knows which process is gone, however
long another one works. A training of one process imports nothing of `torch.distributed`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

from sourcewise.errors import ElsewhereError, GoneError, Notice, RequestError, tell
from sourcewise.runtime.meeting import met

Result = TypeVar("Result")
BEAT = 1.0  # seconds between two signs of life
PATIENCE = 10.0  # seconds to end in by itself, where torchrun is gone
SILENT = 3.5  # seconds without one after which a process is gone, where a collective operation has failed
MEETINGS = itertools.count()  # each has its keys in the store
SHARED = "TORCHELASTIC_USE_AGENT_STORE"  # whether the store is the agent's, which outlives what it starts
LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")


class Ranks:
    """The processes of a training; this class is a process that is alone."""

    rank, world, local_world = 0, 1, 1
    began_before = False  # whether torchrun started these processes anew, after others had begun this training

    @property
    def leads(self) -> bool:
        """Whether this is the first process, which writes the files."""
        return self.rank == 0

    @contextlib.contextmanager
    def agreed(self, *, patient: bool = False) -> Iterator[None]:
        """Within: what may fail; if it fails on one process, it ends on all with an error.

        It should take all about as long, unless they are `patient`: then they wait as long as the others are heard.
        """
        yield

    def first(self, function: Callable[[], Result]) -> Result:
        """Result of a function that the first process calls; as JSON, since the others get it through the store."""
        return function()

    @contextlib.contextmanager
    def led(self, block: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
        """Within: the block of the first process, such as a lock that it holds."""
        with block():
            yield

    def any(self, flag: bool) -> bool:
        """Whether a flag is set on any process."""
        return flag

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        return tensor

    def gather(self, piece: Result) -> list[Result]:
        """What each process has, in their order."""
        return [piece]

    def connect(self, device: torch.device, timeout: float) -> None:
        """Connect the processes for `sum` and `any`; an operation that takes longer than `timeout` seconds fails."""

    def begins(self) -> None:
        """Note that the training has its files, so that processes that are started anew go on with it."""


class Remaining(Ranks):
    """A process that torchrun started alone: perhaps the only one that is left of several."""

    def __init__(self, kept: Any) -> None:
        """`kept` is the store of all that torchrun starts for a training."""
        self.kept, self.began_before = kept, kept.check(["begun"])

    def begins(self) -> None:
        """See Ranks."""
        self.kept.set("begun", "")


class SeveralRanks(Ranks):
    """One of several processes."""

    def __init__(self, rank: int, world: int, store: Any, kept: Any = None) -> None:
        """`store` is a store of torch's that all processes reach; `kept` also those that are started anew."""
        self.rank, self.world, self.store, self.kept = rank, world, store, kept or store
        self.local_world = int(os.environ.get("LOCAL_WORLD_SIZE", world))
        self.began_before = self.kept.check(["begun"])
        self.timeout, self.turn = 600.0, 0
        self.connected = self.made = False  # to a group of processes · whether it was made here
        self._done = threading.Event()
        threading.Thread(target=self._beat, args=(store.clone(),), daemon=True).start()

    @contextlib.contextmanager
    def agreed(self, *, patient: bool = False) -> Iterator[None]:
        """See Ranks."""
        error: Exception | None = None
        try:
            yield
        except Exception as found:
            error = found
        self._settle(error, patient)

    def first(self, function: Callable[[], Result]) -> Result:
        """See Ranks."""
        key = self._next("first")
        if not self.leads:
            self._wait(key, 0)
            said: dict[str, Any] = json.loads(self.store.get(key))
            if "failed" in said:
                raise ElsewhereError(said["failed"])
            return said["value"]  # type: ignore[no-any-return]
        try:
            value = function()
            self.store.set(key, json.dumps({"value": value}))
        except Exception as error:
            self.store.set(key, json.dumps({"failed": status_of(error)}))
            raise
        return value

    @contextlib.contextmanager
    def led(self, block: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
        """See Ranks."""
        with contextlib.ExitStack() as stack:
            self.first(lambda: stack.enter_context(block()) and None)
            yield

    def any(self, flag: bool) -> bool:
        """See Ranks."""
        return bool(self.sum(torch.tensor(int(flag))))

    def sum(self, tensor: Tensor) -> Tensor:
        """See Ranks."""
        import torch.distributed as dist

        dist.all_reduce(tensor)
        return tensor

    def gather(self, piece: Result) -> list[Result]:
        """See Ranks."""
        import torch.distributed as dist

        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, piece)
        return found

    def connect(self, device: torch.device, timeout: float) -> None:
        """See Ranks."""
        import torch.distributed as dist

        self.timeout, self.connected = timeout, True
        if dist.is_initialized():  # by Ray Train, which ends it, too
            return
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        store = dist.PrefixStore("group", self.store.clone())
        dist.init_process_group(
            backend, store=store, rank=self.rank, world_size=self.world, timeout=timedelta(seconds=timeout)
        )
        self.made = True

    def begins(self) -> None:
        """See Ranks."""
        self.kept.set("begun", "")

    def leave(self, status: int = 0) -> None:
        """End of this process's part: the others may know that it ended by itself."""
        import torch.distributed as dist

        with contextlib.suppress(Exception):  # the store may be gone, with torchrun
            self.store.set(f"left/{self.rank}", str(status))
        self._done.set()
        if self.made and not status:
            dist.destroy_process_group()

    def explain(self, error: Exception) -> Exception:
        """What to raise for an error of torch's: that another process is gone, if one is, or the error itself.

        One process alone tells it.
        """
        before = self._beats()
        time.sleep(SILENT)
        after, left = self._beats(), self._left()
        failed = [status for status in left.values() if status]
        if failed:
            return ElsewhereError(failed[0])
        silent = [r for r in range(self.world) if r != self.rank and r not in left and before[r] == after[r]]
        if not silent:
            return error
        if self.store.add("told", 1) > 1:
            return ElsewhereError()
        names = ", ".join(map(str, silent))
        said = f"process {names} of {self.world} (counted from 0) is gone, or did not answer for {self.timeout:g} s"
        return GoneError(f"{said}; what was saved last is kept, go on with --resume")

    def _settle(self, error: Exception | None, patient: bool) -> None:
        """Raises the error of this process, or an ElsewhereError for that of another one, which tells it."""
        status = 0 if error is None else status_of(error)
        if isinstance(error, ElsewhereError):
            raise error
        key = self._next("agreed")
        if self.connected and not patient:
            found = torch.zeros(self.world, dtype=torch.int32)
            found[self.rank] = status
            said = self.sum(found).tolist()
        else:
            self.store.set(f"{key}/{self.rank}", str(status))
            for rank in range(self.world):
                self._wait(f"{key}/{rank}", rank)
            said = [int(self.store.get(f"{key}/{rank}")) for rank in range(self.world)]
        failed = [rank for rank, each in enumerate(said) if each]
        if not failed:
            return
        if error is not None and failed[0] == self.rank:
            raise error
        raise ElsewhereError(said[failed[0]]) from None

    def _wait(self, key: str, rank: int) -> None:
        """Wait for a key that a process sets, as long as it gives signs of life. Raises RequestError."""
        heard, since, looked, pause = -1, time.monotonic(), 0.0, 0.001
        while not self.store.check([key]):
            time.sleep(pause)
            pause, now = min(2 * pause, 0.05), time.monotonic()
            if now - looked < BEAT:
                continue
            looked, beats, left = now, self._beats()[rank], self._left()
            if rank in left and not self.store.check([key]):
                raise ElsewhereError(left[rank] or 2)
            if beats != heard:
                heard, since = beats, now
            elif now - since > self.timeout:
                raise self.explain(RuntimeError(f"process {rank} does not answer"))

    def _next(self, what: str) -> str:
        self.turn += 1
        return f"{what}/{self.turn}"

    def _beat(self, store: Any) -> None:
        while not self._done.is_set():
            try:
                store.add(f"beat/{self.rank}", 1)
            except Exception:
                self._end()
                return
            self._done.wait(BEAT)

    def _end(self) -> None:
        """End this process, as by two Ctrl-C: torchrun is gone, and with it the store. Called on another thread."""
        for _ in range(2):
            if not self._done.wait(BEAT / 2):
                os.kill(os.getpid(), signal.SIGTERM)
        if not self._done.wait(PATIENCE):
            os._exit(130)

    def _beats(self) -> list[int]:
        return [self.store.add(f"beat/{rank}", 0) for rank in range(self.world)]

    def _left(self) -> dict[int, int]:
        """Process → exit status, of those that ended by themselves."""
        there = [rank for rank in range(self.world) if self.store.check([f"left/{rank}"])]
        return {rank: int(self.store.get(f"left/{rank}")) for rank in there}


def status_of(error: BaseException) -> int:
    """The exit status for an error: 2 for a wrong request, 70 for a bug."""
    return 2 if isinstance(error, (RequestError, OSError, MemoryError)) else 70


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """Within: the processes of this training, as torchrun started them; else one that is alone.

    Variables of a launcher that are set without it are told, and not followed.
    """
    if not launched():
        _tell_of_variables()
        yield Ranks()
        return
    if not several():
        yield Remaining(_kept(_store()[0])) if os.environ.get(SHARED) == "True" else Ranks()
        return
    ranks = _meet()
    status = 70
    try:
        with _silent() if ranks.rank else contextlib.nullcontext():
            yield ranks
        status = 0
    except RuntimeError as error:
        raised = ranks.explain(error)
        status = status_of(raised)
        if raised is error:
            raise
        raise raised from error
    except Exception as error:
        status = status_of(error)
        raise
    except KeyboardInterrupt:
        status = 130
        raise
    finally:
        ranks.leave(status)


def launched() -> bool:
    """Whether torchrun has started this process."""
    return all(os.environ.get(name) for name in LAUNCHED)


def several() -> bool:
    """Whether torchrun has started several processes, of which this is one."""
    return launched() and int(os.environ["WORLD_SIZE"]) > 1


def told_here() -> bool:
    """Whether this process tells the user of a training: it is alone, or the first."""
    return not launched() or os.environ["RANK"] == "0"


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Within: no notices, which the first process gives."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        yield


def _meet() -> SeveralRanks:
    """This process among all that were started with it. Raises RequestError if they do not meet."""
    import torch.distributed as dist

    store, rank, world = _store()
    kept = _kept(store)
    return SeveralRanks(rank, world, dist.PrefixStore(met(kept, rank, world), kept), kept)


def _store() -> tuple[Any, int, int]:
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


def _kept(store: Any) -> Any:
    """The part of torchrun's store that outlives processes which it starts anew, with all that they said."""
    import torch.distributed as dist

    return dist.PrefixStore(f"sourcewise/{next(MEETINGS)}", store)


def _tell_of_variables() -> None:
    given = [f"{name}={os.environ[name]}" for name in ("RANK", "WORLD_SIZE") if os.environ.get(name)]
    if given and "WORLD_SIZE=1" not in given:
        told = "set, but not by torchrun, so this process trains alone"
        tell(f"{', '.join(given)}: {told}; for several: sourcewise train --ranks N")
