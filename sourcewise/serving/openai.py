"""Routes for clients of OpenAI's API: /v1/models, /v1/completions and /v1/audio/transcriptions.

A prompt is a source, and its completion the model's output. What the API has and this server has not is refused by
name. Unlike there, a request without a temperature is searched with the model's own options, not sampled.
"""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from sourcewise.config import messages as schema
from sourcewise.data.open import open_sources
from sourcewise.errors import RequestError
from sourcewise.generation.model import Model
from sourcewise.generation.outputs import Output, Outputs, known
from sourcewise.serving import asked
from sourcewise.serving.asked import Asked, Limits, Refusal
from sourcewise.serving.batching import Batcher
from sourcewise.serving.jobs import Stream, job_of, result, streaming

SOUNDS = (".wav", ".flac", ".mp3", ".ogg")
FORM = "multipart/form-data"


class Completion(BaseModel):
    """The body of /v1/completions."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    prompt: str | list[str] = Field(description="one source, or several")
    model: str | None = Field(None, description="not read: a server has one model")
    max_tokens: int | None = Field(None, gt=0, description="longest output, in tokens")
    temperature: float | None = Field(None, ge=0, description="of samples; 0: greedy; default: the model's search")
    top_p: float | None = Field(None, gt=0, le=1, description="sample within this probability mass")
    n: int = Field(1, ge=1, description="outputs per prompt")
    best_of: int | None = Field(None, ge=1, description="beams, or samples, of which n are given")
    logprobs: int | None = Field(None, ge=0, description="with the log-probability of each token")
    stop: str | list[str] | None = Field(None, description="an output ends before the first of these texts")
    seed: int | None = Field(None, ge=0, description="of samples")
    stream: bool = Field(False, description="server-sent events")
    echo: bool = False
    suffix: str | None = None
    presence_penalty: float = 0
    frequency_penalty: float = 0
    logit_bias: dict[str, float] | None = None


REFUSED = {  # fields of the API that must keep their neutral value
    "echo": (False, "the source is no part of the output"),
    "suffix": (None, "outputs are not filled in"),
    "presence_penalty": (0, "POST /generate has repetition_penalty"),
    "frequency_penalty": (0, "POST /generate has repetition_penalty"),
    "logit_bias": (None, "POST /generate has suppress"),
}


def add_openai(app: FastAPI, model: Model, limits: Limits, batcher: Batcher) -> None:
    """Add the routes."""
    created = int(time.time())

    @app.get("/v1/models")
    async def list_models() -> Response:
        """The one model, as OpenAI's clients list models."""
        one = {"id": model.name, "object": "model", "created": created, "owned_by": "sourcewise"}
        return JSONResponse({"object": "list", "data": [one]})

    @app.post("/v1/completions")
    async def complete(request: Request) -> Response:
        """Generate an output for each prompt, as OpenAI's API does."""
        body = _body(await request.body())
        wanted = _asked(model, limits, body)
        name = f"cmpl-{uuid.uuid4().hex}"
        if body.stream:
            job, pieces = streaming(wanted)
            batcher.submit(job)
            return Stream(job, _events(model.name, name, job, pieces, _stops(body)))
        found = await result(batcher, job_of(wanted), request)
        return JSONResponse(_completion(model, name, wanted, found, _stops(body)))

    @app.post("/v1/audio/transcriptions")
    async def transcribe(request: Request) -> Response:
        """Write down what a recording says, of a model that reads the features of recordings."""
        data, filename, fields = await _form(request)
        shape = fields.get("response_format", "json")
        if shape not in ("json", "text"):
            raise Refusal(422, f"response_format: should be json or text, not {shape!r:.80}")
        wanted = _heard(model, limits, data, filename, fields)
        text = (await result(batcher, job_of(wanted), request))[0].best.text
        return PlainTextResponse(f"{text}\n") if shape == "text" else JSONResponse({"text": text})


async def _form(request: Request) -> tuple[bytes, str, dict[str, str]]:
    """The file of a form, its name, and the other fields. Raises Refusal, RequestError."""
    kind = request.headers.get("content-type", "")
    if not kind.startswith(FORM):
        raise Refusal(415, f"Content-Type: should be {FORM}, not {kind or 'empty'}")
    if find_spec("python_multipart") is None:
        raise RequestError("the server needs python-multipart for files: pip install 'sourcewise[serve]'")
    async with request.form(max_files=1, max_fields=16) as form:
        file = form.get("file")
        if file is None or isinstance(file, str):
            raise Refusal(422, "file: give a recording")
        data, filename = await file.read(), file.filename or ""
        fields = {key: str(value) for key, value in form.items() if key != "file"}
    return data, filename, fields


def _body(data: bytes) -> Completion:
    """Raises Refusal."""
    try:
        body = Completion.model_validate(from_json(data))
    except ValidationError as error:
        raise Refusal(422, schema.explain(error, Completion, "request").removeprefix("request: ")) from None
    except ValueError as error:
        raise Refusal(400, f"body: is not JSON ({str(error).splitlines()[0][:100]})") from None
    for name, (neutral, way) in REFUSED.items():
        if getattr(body, name) not in (neutral, {}):
            raise Refusal(422, f"{name}: is not among what this server can do; {way}")
    if body.stream and (body.n > 1 or body.logprobs is not None):
        raise Refusal(422, f"{'n' if body.n > 1 else 'logprobs'}: does not go with stream")
    if body.best_of is not None and body.best_of < body.n:
        raise Refusal(422, f"best_of: should be at least n, not {body.best_of}")
    return body


def _stops(body: Completion) -> list[str]:
    return [body.stop] if isinstance(body.stop, str) else body.stop or []


def _asked(model: Model, limits: Limits, body: Completion) -> Asked:
    """A completion as our own request."""
    given: dict[str, Any] = {"sources": [body.prompt] if isinstance(body.prompt, str) else body.prompt}
    named = {"max_new_tokens": body.max_tokens, "seed": body.seed, "top_p": body.top_p, "stop": body.stop}
    given |= {key: value for key, value in named.items() if value is not None}
    given |= {"n_best": body.n, "scores": body.logprobs is not None, "stream": body.stream}
    if not given["sources"]:
        raise Refusal(422, "prompt: should have at least one entry")
    if body.temperature:
        given |= {"sample": True, "temperature": body.temperature}
    elif body.temperature == 0:
        given |= {"sample": False, "beams": max(body.n, body.best_of or 1)}
    elif body.top_p is not None and body.top_p < 1:
        given["sample"] = True
    if body.best_of is not None and not given.get("sample"):
        given["beams"] = body.best_of
    return asked.accept(model, limits, given)


def _completion(
    model: Model, name: str, wanted: Asked, found: Sequence[Outputs], stops: Sequence[str]
) -> dict[str, Any]:
    """The answer in the shape of OpenAI's API."""
    outputs = [output for each in found for output in each.best_first]
    read, said = int(model.lay_out(wanted.sources).source_lengths.sum()), sum(len(each.ids) for each in outputs)
    return {
        "id": name,
        "object": "text_completion",
        "created": int(time.time()),
        "model": model.name,
        "choices": [_choice(i, output, stops) for i, output in enumerate(outputs)],
        "usage": {"prompt_tokens": read, "completion_tokens": said, "total_tokens": read + said},
    }


def _choice(index: int, output: Output, stops: Sequence[str]) -> dict[str, Any]:
    """One output; its text ends before a text that ends outputs."""
    text = _before(output.text, stops)
    reason = "stop" if output.finished else "length"
    return {"index": index, "text": text, "finish_reason": reason, "logprobs": _logprobs(output)}


def _before(text: str, stops: Sequence[str]) -> str:
    """The text before the first of these."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def _logprobs(output: Output) -> dict[str, Any] | None:
    if not output.tokens:
        return None
    offsets, offset = [], 0
    for token in output.tokens:
        offsets.append(offset)
        offset += len(token.text)
    return {
        "tokens": [token.text for token in output.tokens],
        "token_logprobs": [token.log_probability for token in output.tokens],
        "top_logprobs": None,
        "text_offset": offsets,
        "source_bits": [known(token.source_bits) for token in output.tokens],
    }


async def _events(model: str, name: str, job: Any, pieces: Any, stops: Sequence[str]) -> AsyncIterator[str]:
    """The server-sent events of a streamed completion; what may be the beginning of a stop text is held back."""
    said, sent, held = "", 0, max(map(len, stops), default=1) - 1

    def event(text: str, reason: str | None) -> str:
        choice = {"index": 0, "text": text, "finish_reason": reason, "logprobs": None}
        chunk = {"id": name, "object": "text_completion", "created": int(time.time()), "model": model}
        return f"data: {json.dumps(chunk | {'choices': [choice]}, ensure_ascii=False)}\n\n"

    while (piece := await pieces.get()) is not None:
        said += piece
        whole = _before(said, stops)
        upto = len(whole) if len(whole) < len(said) else max(sent, len(said) - held)
        if upto > sent:
            yield event(said[sent:upto], None)
            sent = upto
    error = job.future.exception()
    if error is None:
        if rest := _before(said, stops)[sent:]:
            yield event(rest, None)
        yield event("", "stop")
    else:
        told = {"error": {"message": f"{type(error).__name__} (a bug of sourcewise)", "type": "server_error"}}
        yield f"data: {json.dumps(told)}\n\n"
    yield "data: [DONE]\n\n"


def _heard(model: Model, limits: Limits, data: bytes, filename: str, fields: dict[str, str]) -> Asked:
    """A recording as our own request. Raises Refusal, RequestError."""
    suffix = Path(filename).suffix.lower()
    if suffix not in SOUNDS:
        raise Refusal(422, f"file: its name should end in one of {', '.join(SOUNDS)}, not {suffix or 'nothing'}")
    if not model.network.dims:
        raise RequestError(f"{model.name}: reads text; it hears nothing")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"recording{suffix}")
        path.write_bytes(data)
        try:
            matrix = open_sources(str(path), sounds=model.data.sounds).features(0)
        except RequestError as error:
            raise Refusal(422, str(error).replace(str(path), "file")) from None
    given: dict[str, Any] = {"features": matrix}
    temperature = fields.get("temperature")
    if temperature and temperature != "0":
        given |= {"sample": True, "temperature": temperature}
    if fields.get("prompt"):
        raise Refusal(422, "prompt: is not among what this server can do")
    return asked.accept(model, limits, given)
