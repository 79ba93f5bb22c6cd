"""A function mapped over many pieces of work, with one process per CPU core.

Generation runs thousands of short operations: threads would wait for the interpreter's lock, and two cores in one
operation for each other. Processes are forked, as in PyTorch's DataLoader: they start at once and share the weights.
Without fork, or on an accelerator, the calling thread does all the work.
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
from sourcewise.runtime.device import is_host
from sourcewise.runtime.ranks import launched

_function: Callable[[int], Any] | None = None  # in a worker process: the mapped function


def worker_count(device: torch.device) -> int:
    """How many processes share work on this device."""
    may_fork = sys.platform == "linux" and _function is None and not multiprocessing.current_process().daemon
    # A fork from another thread would copy the locks and sockets that the main thread is using.
    # So would one in a process that is connected to others of a training.
    may_fork = may_fork and threading.current_thread() is threading.main_thread() and not launched()
    return torch.get_num_threads() if is_host(device) and may_fork else 1


def refuse_ranks() -> None:
    """Raises RequestError in one of several processes of a launcher such as torchrun: each would do the whole work."""
    started = os.environ.get("WORLD_SIZE", "1")
    if started.isdecimal() and int(started) > 1:
        problem = f"started {started} times (WORLD_SIZE), by torchrun or the like; a comparison is started once"
        raise RequestError(f"{problem}: start it without, or unset WORLD_SIZE; for several at a time: compare --jobs")


def map_in_processes(function: Callable[[int], Any], pieces: int, workers: int) -> Iterator[Any]:
    """Yields function(0), function(1), ... in this order; only results travel between processes.

    Raises RuntimeError when a worker dies, usually because memory ran out.
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
    """Initializer of a worker: one thread, Ctrl-C ignored, freed memory kept for the next token."""
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
