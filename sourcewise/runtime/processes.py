"""One function over many pieces of work, a process a CPU core.

Generation is thousands of short operations: threads would wait for the interpreter's lock, and two cores in one
operation for each other. Processes are forked, as PyTorch's DataLoader does it: they start at once and share the
weights. Where there is no fork, or an accelerator does the work, the caller's own thread does it all.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import platform
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from sourcewise.errors import RequestError

_function: Callable[[int], Any] | None = None  # in a worker: what to do


def worker_count(device: torch.device) -> int:
    """How many processes share work on this device."""
    may_fork = sys.platform == "linux" and _function is None and not multiprocessing.current_process().daemon
    # Beside a main thread that does something else, a fork would take that one's locks and sockets with it.
    may_fork = may_fork and threading.current_thread() is threading.main_thread()
    return torch.get_num_threads() if device.type == "cpu" and may_fork else 1


def refuse_ranks() -> None:
    """Refuse to train as one of several processes that a launcher started: each would do the whole. RequestError."""
    started = os.environ.get("WORLD_SIZE", "1")
    if started.isdecimal() and int(started) > 1:
        problem = f"started {started} times (WORLD_SIZE), by torchrun or the like; a training is one process"
        raise RequestError(f"{problem}: start it without, or unset WORLD_SIZE; for several at a time: compare --jobs")


def each(function: Callable[[int], Any], pieces: int, workers: int) -> Iterator[Any]:
    """function(0), function(1), ... in this order; only results travel between processes.

    Raises RuntimeError when a worker dies, which is most often for want of memory.
    """
    workers = min(workers, pieces)
    if workers < 2:
        yield from map(function, range(pieces))
        return
    before = set(multiprocessing.active_children())
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # "multi-threaded, use of fork()": the workers use no threads
        context = multiprocessing.get_context("fork")
        pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(function,))
        futures = [pool.submit(_run, piece) for piece in range(pieces)]
    try:
        for future in futures:
            yield future.result()
    except BrokenProcessPool:
        raise RuntimeError("a worker process died; if memory ran out, lower generation.batch_tokens") from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()


def _begin(function: Callable[[int], Any]) -> None:
    """In a new worker: one thread, no Ctrl-C of its own, and freed memory kept for the next token."""
    global _function
    _function = function
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if platform.libc_ver()[0] == "glibc":
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD
            libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def _run(piece: int) -> Any:
    assert _function is not None
    return _function(piece)
