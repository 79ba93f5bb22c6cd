"""Worker threads that share the CPU's cores.

Splitting one small matrix product over two cores takes 0.6 of the single-core time; giving each core half of the
examples takes 0.5. So each worker thread owns some cores and computes whole examples. Torch releases the interpreter's
lock during its operations, so the threads run in parallel. On an accelerator the calling thread does all the work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from sourcewise.runtime.device import is_host

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_THREADS = 4  # more would wait for the interpreter's lock


class WorkerThreads:
    """Threads that share the CPU's cores evenly; on an accelerator, the calling thread alone."""

    def __init__(self, device: torch.device | None) -> None:
        threads = torch.get_num_threads()
        self.count = min(threads, MOST_THREADS) if device is not None and is_host(device) else 1
        self.pool: ThreadPoolExecutor | None = None
        if self.count > 1:
            share = (threads // self.count,)
            self.pool = ThreadPoolExecutor(self.count, "worker", initializer=torch.set_num_threads, initargs=share)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yields function(item) of every item, in order; items are taken as threads become free."""
        if self.pool is None:
            yield from map(function, items)
            return
        running: deque[Future[Result]] = deque()
        try:
            for item in items:
                running.append(self.pool.submit(function, item))
                if len(running) > self.count:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()
