"""The routes of the server, with their answers."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

import sourcewise
from sourcewise.errors import RequestError
from sourcewise.generation.model import Model
from sourcewise.serving import asked
from sourcewise.serving.asked import Asked, Limits, Refusal
from sourcewise.serving.batching import Batcher, Job
from sourcewise.serving.examples import Examples
from sourcewise.serving.guard import Guard, refused
from sourcewise.serving.jobs import Stream, job_of, result, streaming
from sourcewise.serving.metrics import Metrics
from sourcewise.serving.openai import add_openai
from sourcewise.serving.pages import render_docs, render_page

ABOUT = "Runs one encoder–decoder model. Requests that arrive together share a batch."
LOG = logging.getLogger("sourcewise.serving")
NO = {
    400: "the model cannot do this",
    401: "wrong token",
    408: "the body came too slowly",
    413: "the body is too large",
    415: "of another content type",
    422: "a field is wrong",
    429: "the queue is full: try again after Retry-After seconds",
    503: "shutting down",
}


def create_app(model: Model, limits: Limits | None = None, token: str | None = None) -> FastAPI:
    """The ASGI application that serves a model; its lifespan starts and ends the model's thread.

    Raises NotFinite if a weight of the model is NaN or infinite.
    """
    model.check_weights()
    limits = limits or Limits()
    metrics = Metrics()
    batcher = Batcher(model, limits, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield
        await run_in_threadpool(batcher.close)

    app = FastAPI(
        title=f"sourcewise: {model.name or 'a model'}",
        description=ABOUT,
        version=sourcewise.__version__,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own page loads scripts from elsewhere
        redoc_url=None,
    )
    app.state.batcher = batcher
    app.add_middleware(Guard, limits=limits, metrics=metrics, token=token)
    _tell_errors(app)
    _add_work(app, model, limits, batcher)
    add_openai(app, model, limits, batcher)
    _add_facts(app, model, batcher, metrics)
    _add_pages(app, model, limits, token is not None)
    return app


def _add_work(app: FastAPI, model: Model, limits: Limits, batcher: Batcher) -> None:
    """Add the routes that run the model: /generate and /trace."""

    async def read(request: Request, one: bool) -> Asked:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        query = dict(request.query_params)
        return await run_in_threadpool(asked.parse, model, limits, await request.body(), kind, query, one=one)

    @app.post("/generate", **_described("outputs", "one text per source, in order", "event-stream"))
    async def generate(request: Request) -> Response:
        """Generate an output for each source; with `n_best` or `scores`, `results` has all outputs with their scores.

        With `stream` the answer is server-sent events: `data: {"text": …}` for each piece, then `event: done` with the
        whole output, or `event: error`.
        """
        wanted = await read(request, one=False)
        if wanted.stream:
            job, pieces = streaming(wanted)
            batcher.submit(job)
            return Stream(job, _events(job, pieces))
        found = await result(batcher, job_of(wanted), request)
        answer = {"model": model.name, "outputs": [each.best.text for each in found]}
        if wanted.n_best > 1 or wanted.scores:
            answer["results"] = [each.to_dict() for each in found]
        return JSONResponse(answer)

    @app.post("/trace", **_described("steps", "what docs/trace.md describes"))
    async def trace(request: Request) -> Response:
        """Generate for one source, with each token's probability, source bits and attention to the source."""
        wanted = await read(request, one=True)
        if wanted.stream:
            raise Refusal(422, "stream: goes with /generate; a trace comes whole")
        job = Job("trace", wanted.sources, wanted.slots, wanted.options, what_if=wanted.what_if)
        return Response(await result(batcher, job, request), media_type="application/json")


def _add_facts(app: FastAPI, model: Model, batcher: Batcher, metrics: Metrics) -> None:
    """Add the routes that do not use the model's thread: /health and /metrics."""
    dims = model.network.dims

    @app.get("/health")
    async def health() -> Response:
        """Whether the model is running, the kind of sources it reads, and the number of waiting requests."""
        facts = {
            "status": "ok" if batcher.running else "the model's thread has stopped",
            "model": model.name,
            "reads": f"features {dims} wide" if dims else "text",
            "int8": model.engine is not None,
            "waiting": batcher.waiting,
            "version": sourcewise.__version__,
        }
        return JSONResponse(facts, 200 if batcher.running else 503)

    @app.get("/metrics")
    async def tell_metrics() -> Response:
        """Counters in Prometheus's format."""
        return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _add_pages(app: FastAPI, model: Model, limits: Limits, guarded: bool) -> None:
    """Add the page at /, its examples, and /docs."""
    examples = Examples(model)
    home, policy = render_page(model, limits, guarded)
    docs = ""

    @app.get("/", include_in_schema=False)
    async def show_home() -> Response:
        return HTMLResponse(home, headers={"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"})

    @app.get("/docs", include_in_schema=False)
    async def show_docs() -> Response:
        nonlocal docs
        docs = docs or render_docs(app.openapi())
        return HTMLResponse(docs)

    @app.get("/examples")
    async def tell_examples() -> Response:
        """Sources from the run's own test, validation or training set, with references."""
        return JSONResponse({"examples": await run_in_threadpool(examples.listed)})

    @app.get("/examples/{number}", response_class=Response)
    async def tell_example(number: int) -> Response:
        """The features of an example as a .npy; the first has the number 0."""
        found = await run_in_threadpool(examples.npy, number)
        if found is None:
            raise Refusal(404, f"/examples/{number}: no such features; /examples lists what there is")
        return Response(found, media_type=asked.NPY[1])


def _tell_errors(app: FastAPI) -> None:
    """Add handlers that answer every error with {"error": one line}."""

    @app.exception_handler(Refusal)
    async def refuse(request: Request, error: Refusal) -> Response:
        return refused(error.status, error.message, error.headers)

    @app.exception_handler(RequestError)
    async def wrong(request: Request, error: RequestError) -> Response:
        return refused(400, str(error))

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        known = "; see /docs" if error.status_code in (404, 405) else ""
        return refused(error.status_code, f"{request.url.path}: {error.detail}{known}", error.headers)

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:  # starlette logs it, too
        return refused(500, f"{type(error).__name__} (a bug of sourcewise; the server's log shows where)")


async def _events(job: Job, pieces: asyncio.Queue[str | None]) -> AsyncIterator[str]:
    """The server-sent events of a stream."""
    said = ""
    while (piece := await pieces.get()) is not None:
        said += piece
        yield _event({"text": piece})
    error = job.future.exception()
    if error is None:
        yield _event({"output": said}, "done")
    else:
        LOG.error("a stream failed", exc_info=error)
        yield _event({"error": f"{type(error).__name__} (a bug of sourcewise)"}, "error")


def _event(data: dict[str, str], name: str = "") -> str:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n"


def _described(key: str, value: str, also: str = "") -> dict[str, Any]:
    """OpenAPI's description of a route that parses its body itself."""
    schema = asked.Body.model_json_schema()
    schema["properties"].pop(asked.OWN)
    content: dict[str, Any] = {asked.JSON: {"schema": schema}}
    binary = {"schema": {"type": "string", "format": "binary"}, "description": "a .npy, options in the query"}
    content |= dict.fromkeys(asked.NPY, binary)
    answer: dict[str, Any] = {"description": f"JSON with {key}: {value}", "content": {asked.JSON: {}}}
    if also:
        answer["content"][f"text/{also}"] = {}
    return {
        "openapi_extra": {"requestBody": {"required": True, "content": content}},
        "responses": {200: answer, **{status: {"description": text} for status, text in NO.items()}},
        "response_class": Response,
    }
