"""Jobs of requests: made from what was asked, awaited or streamed, and dropped when their client hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from sourcewise.serving.asked import Asked, Refusal
from sourcewise.serving.batching import Batcher, Job

GONE = 499  # nginx's status for a client that hung up; only the metrics see it
NOT_KEPT = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # proxies must not buffer events


def job_of(wanted: Asked) -> Job:
    """The job of a checked request that is not streamed."""
    return Job("generate", wanted.sources, wanted.slots, wanted.options, n_best=wanted.n_best, scores=wanted.scores)


async def result(batcher: Batcher, job: Job, request: Request) -> Any:
    """The result of a job, which is dropped if its client hangs up first."""
    batcher.submit(job)
    done = asyncio.wrap_future(job.future)
    hung_up = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait((done, hung_up), return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            raise Refusal(GONE, "the client has gone")
        return done.result()
    finally:
        hung_up.cancel()
        if not done.done():
            job.drop()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def streaming(wanted: Asked) -> tuple[Job, asyncio.Queue[str | None]]:
    """A job and the queue of its pieces, with None at the end, so that the model's thread waits for no client."""
    loop, pieces = asyncio.get_running_loop(), asyncio.Queue[str | None]()

    def put(piece: str | None) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

    job = Job("stream", wanted.sources, wanted.slots, wanted.options, put)
    job.future.add_done_callback(lambda _: put(None))
    return job, pieces


class Stream(StreamingResponse):
    """The response with a job's events; the job is dropped when the client hangs up, even before the first event."""

    def __init__(self, job: Job, events: AsyncIterator[str]) -> None:
        super().__init__(events, media_type="text/event-stream", headers=NOT_KEPT)
        self.job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events, and drop the job at their end."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.job.drop()
