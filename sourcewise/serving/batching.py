"""Dynamic batching: waiting requests run together in one thread, the model's.

A batch holds waiting requests with equal options, in order of arrival, up to a budget of memory positions × beams.
Requests that sample run alone, since samples belong to indices in a set. Between two batches every stream is
continued by one token, so that neither waits for the other's end.
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

STEADY = 0.9  # weight of the past in the running mean of the seconds per request


@dataclass(eq=False)
class Job:
    """A waiting or running request; its future holds `Outputs` (generate), None at the end (stream) or JSON (trace)."""

    kind: Literal["generate", "stream", "trace"]
    sources: Dataset
    slots: int
    options: GenerationConfig
    tell: Callable[[str], None] = lambda piece: None  # called with the pieces of a stream, in the model's thread
    future: Future[Any] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)
    gone: bool = False  # the client hung up
    n_best: int = 1  # outputs per source
    scores: bool = False  # of their tokens
    what_if: bool = False  # a trace that takes parts of its source away

    def drop(self) -> None:
        """Called when the client hangs up: a waiting job is removed, a stream stops at its next token."""
        self.gone = True
        self.future.cancel()

    def goes_with(self, other: Job) -> bool:
        """Whether both can share a batch."""
        alike = (self.options, self.n_best, self.scores) == (other.options, other.n_best, other.scores)
        return self.kind == other.kind == "generate" and not self.options.sample and alike


class Batcher:
    """The queue of jobs and the thread that runs them."""

    def __init__(self, model: Model, limits: Limits, metrics: Metrics) -> None:
        self.model, self.limits, self.metrics = model, limits, metrics
        self._waiting: deque[Job] = deque()
        self._streams: list[tuple[Job, Iterator[str]]] = []
        self._changed = threading.Condition()
        self._closed = False
        self._pace = 0.0  # seconds per request
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        metrics.watch(self)

    @property
    def waiting(self) -> int:
        """Number of waiting requests."""
        with self._changed:
            return sum(not job.gone for job in self._waiting)

    @property
    def running(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Refuse new jobs, and return when all others are finished."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def submit(self, job: Job) -> None:
        """Add a job to the queue. Raises Refusal if the queue is full or closed."""
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

    @torch.inference_mode()  # for the whole thread, since streams that take turns cannot each leave the mode
    def _work(self) -> None:
        while (jobs := self._next()) is not None:
            begun = time.monotonic()
            if jobs:
                live = [job for job in jobs if job.future.set_running_or_notify_cancel()]
                if live:
                    self._run(live)
                took = (time.monotonic() - begun) / len(jobs)
                self._pace = STEADY * self._pace + (1 - STEADY) * took if self._pace else took
            self._go_on()

    def _next(self) -> list[Job] | None:
        """The next batch of jobs; empty if there are only streams to continue, None at the end."""
        with self._changed:
            while True:
                self._forget_gone()
                if self._waiting or self._streams:
                    break
                if self._closed:
                    return None
                self._changed.wait()
            room = len(self._streams) < self.limits.streams
            first = next((job for job in self._waiting if room or job.kind != "stream"), None)
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

    def _mates(self, first: Job) -> list[Job]:
        """The first job and others that share its batch within the budget, in order of arrival."""
        batch, slots = [first], first.slots
        for job in self._waiting:
            if job is not first and first.goes_with(job) and slots + job.slots <= self.limits.slots:
                batch.append(job)
                slots += job.slots
        return batch

    def _run(self, jobs: list[Job]) -> None:
        """Run a batch; if it fails, run each job alone, so that only the culprit gets the error."""
        try:
            results = self._results(jobs)
        except Exception as error:
            for job in jobs:
                if len(jobs) > 1:
                    self._run([job])
                else:
                    job.future.set_exception(error)
            return
        self.metrics.sources.inc(sum(len(job.sources) for job in jobs))
        for job, result in zip(jobs, results, strict=True):
            if job.kind != "stream":
                job.future.set_result(result)

    def _results(self, jobs: list[Job]) -> list[Any]:
        """One result per job."""
        first, options = jobs[0], jobs[0].options.model_dump()
        if first.kind == "stream":
            self._streams.append((first, self.model.stream(first.sources, **options)))
            return [None]
        if first.kind == "trace":
            traced = trace(self.model, first.sources, what_if=first.what_if, **options)
            return [traced.to_json(self.limits.weights)]
        self.metrics.batch.observe(len(jobs))
        sources = joined([job.sources for job in jobs])  # alone: clients do not see each other
        found = self.model.generate(sources, n_best=first.n_best, scores=first.scores, alone=True, **options)
        outputs = iter(found.of)
        return [[next(outputs) for _ in job.sources] for job in jobs]

    def _go_on(self) -> None:
        """Continue every stream by one token."""
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
    """Concatenate sets of one kind."""
    if len(sets) == 1:
        return sets[0]
    places = [(each, i) for each in sets for i in range(len(each))]
    examples = [each[i] for each, i in places]
    return replace(sets[0], examples=examples, read=lambda i: places[i][0].features(places[i][1]))
