"""Requests that wait are run together, in one thread: the model's.

A batch is what waits with the same options, in order of arrival, up to a budget of source slots × beams; what is
sampled runs alone, since its draws belong to positions in a set. Streams go on by a token each between two batches, so
that neither waits for the other's end.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from sourcewise.config import GenerationConfig
from sourcewise.data.examples import Dataset
from sourcewise.generation.model import Model
from sourcewise.generation.tracing import trace
from sourcewise.serving.asked import Limits, Refusal
from sourcewise.serving.metrics import Metrics

STEADY = 0.9  # share of the past in the mean time a request takes


@dataclass(eq=False)
class Job:
    """Work that waits or runs. Its future gives outputs (generate), None at the end (stream), or JSON (trace)."""

    kind: Literal["generate", "stream", "trace"]
    sources: Dataset
    slots: int
    options: GenerationConfig
    tell: Callable[[str], None] = lambda piece: None  # takes the pieces of a stream, in the model's thread
    future: Future[Any] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)
    gone: bool = False  # nobody wants it any more

    def drop(self) -> None:
        """The client has gone: work that waits is left, a stream stops at its next token."""
        self.gone = True
        self.future.cancel()

    def goes_with(self, other: Job) -> bool:
        """Whether one search may do both."""
        return self.kind == other.kind == "generate" and not self.options.sample and self.options == other.options


class Batcher:
    """The queue, and the thread that works it off."""

    def __init__(self, model: Model, limits: Limits, metrics: Metrics) -> None:
        self.model, self.limits, self.metrics = model, limits, metrics
        self._waiting: deque[Job] = deque()
        self._streams: list[tuple[Job, Iterator[str]]] = []
        self._changed = threading.Condition()
        self._closed = False
        self._pace = 0.0  # seconds a request
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        metrics.watch(self)

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        with self._changed:
            return sum(not job.gone for job in self._waiting)

    @property
    def running(self) -> bool:
        """Whether the thread lives."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def close(self) -> None:
        """Take nothing more, finish what waits and runs, and return then."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def submit(self, job: Job) -> None:
        """Put work in the queue. Raises Refusal where it is full or closed."""
        with self._changed:
            if self._closed:
                raise Refusal(503, "the server is shutting down")
            self._forget_gone()
            if len(self._waiting) >= self.limits.queue:
                wait = max(1, math.ceil(self._pace * len(self._waiting)))
                full = f"{len(self._waiting)} requests are waiting; try again in {wait} s"
                raise Refusal(429, full, {"Retry-After": str(wait)})
            self._waiting.append(job)
            self._changed.notify()

    def _forget_gone(self) -> None:
        kept = [job for job in self._waiting if not job.gone]
        self.metrics.dropped.inc(len(self._waiting) - len(kept))
        self._waiting = deque(kept)

    @torch.inference_mode()  # of the whole thread: streams that take turns may not leave each other's
    def _work(self) -> None:
        while (jobs := self._next()) is not None:
            begun = time.monotonic()
            if jobs:
                self._run(jobs)
                took = (time.monotonic() - begun) / len(jobs)
                self._pace = STEADY * self._pace + (1 - STEADY) * took if self._pace else took
            self._go_on()

    def _next(self) -> list[Job] | None:
        """What is to be run together: nothing where only streams go on, None at the end."""
        with self._changed:
            while True:
                self._forget_gone()
                if self._waiting or self._streams:
                    break
                if self._closed:
                    return None
                self._changed.wait()
            first = next((job for job in self._waiting if job.kind != "stream" or self._has_room()), None)
            if first is None:
                return []
            batch = self._mates(first)
            deadline = first.arrived + self.limits.patience
            while not (self._closed or self._streams) and first.goes_with(first):
                left = deadline - time.monotonic()
                if left <= 0 or len(batch) < len(self._waiting):  # another kind waits, or the batch is full
                    break
                self._changed.wait(left)
                batch = self._mates(first)
            self._forget_gone()
            batch = [job for job in batch if not job.gone]
            taken = set(map(id, batch))
            self._waiting = deque(job for job in self._waiting if id(job) not in taken)
            return batch

    def _has_room(self) -> bool:
        return len(self._streams) < self.limits.streams

    def _mates(self, first: Job) -> list[Job]:
        """The first one, and those that go with it within the budget, in order of arrival."""
        batch, slots = [first], first.slots
        for job in self._waiting:
            if job is not first and first.goes_with(job) and slots + job.slots <= self.limits.slots:
                batch.append(job)
                slots += job.slots
        return batch

    def _run(self, jobs: list[Job]) -> None:
        """Run what goes together; where that fails, each alone, so that only the culprit is told."""
        live = [job for job in jobs if job.future.set_running_or_notify_cancel()]
        if not live:
            return
        try:
            results = self._results(live)
        except Exception as error:
            if len(live) == 1:
                live[0].future.set_exception(error)
            else:
                for job in live:
                    self._run_one(job)
            return
        self.metrics.sources.inc(sum(len(job.sources) for job in live))
        for job, result in zip(live, results, strict=True):
            if job.kind != "stream":
                job.future.set_result(result)

    def _run_one(self, job: Job) -> None:
        try:
            job.future.set_result(self._results([job])[0])
        except Exception as error:
            job.future.set_exception(error)
        else:
            self.metrics.sources.inc(len(job.sources))

    def _results(self, jobs: list[Job]) -> list[Any]:
        """A result a job."""
        first, options = jobs[0], jobs[0].options.model_dump()
        if first.kind == "stream":
            self._streams.append((first, self.model.stream(first.sources, **options)))
            return [None]
        if first.kind == "trace":
            return [trace(self.model, first.sources, **options).to_json(self.limits.weights)]
        self.metrics.batch.observe(len(jobs))
        outputs = iter(self.model.generate(joined([job.sources for job in jobs]), **options))
        return [[next(outputs) for _ in job.sources] for job in jobs]

    def _go_on(self) -> None:
        """A token more of every stream."""
        for job, pieces in list(self._streams):
            try:
                piece = None if job.gone else next(pieces, None)
                if piece:
                    job.tell(piece)
                if piece is not None:
                    continue
                job.future.set_result(None)
            except Exception as error:
                job.future.set_exception(error)
            self._streams.remove((job, pieces))


def joined(sets: list[Dataset]) -> Dataset:
    """Sets of one kind as one, in their order."""
    if len(sets) == 1:
        return sets[0]
    places = [(each, i) for each in sets for i in range(len(each))]
    examples = [each[i] for each, i in places]
    return replace(sets[0], examples=examples, read=lambda i: places[i][0].features(places[i][1]))
