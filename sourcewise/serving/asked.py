"""Parses requests: the body is checked against the model and the limits, and becomes sources and options.

A body is JSON with texts or features, or the bytes of one .npy with the options in the query.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import Field, ValidationError
from pydantic.config import JsonDict
from pydantic_core import from_json

from sourcewise.config import GenerationConfig
from sourcewise.config import messages as schema
from sourcewise.data.examples import Dataset
from sourcewise.data.readers.matrices import parse_matrix
from sourcewise.data.request import SourceRequest
from sourcewise.errors import RequestError
from sourcewise.generation.generate import candidates
from sourcewise.generation.model import Model

JSON, NPY = "application/json", ("application/octet-stream", "application/x-npy")
OWN = "batch_tokens"  # an option of generation that clients may not set
LONGEST_TOKEN = 64  # characters per token; longer texts are refused before tokenisation
MATRIX: JsonDict = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}


@dataclass(frozen=True)
class Limits:
    """Limits of the server; requests beyond are refused with the reason."""

    body: int = 16 << 20  # bytes
    sources: int = 64  # per request
    beams: int = 32
    new_tokens: int = 1024
    queue: int = 128  # waiting requests
    streams: int = 8  # concurrent streams
    slots: int = 8192  # memory positions × beams per batch
    weights: int = 1_000_000  # attention weights in a trace; above, averages over heads
    patience: float = 0.005  # seconds that a request waits for others to share its batch
    seconds: float = 30.0  # for a body to arrive, and for running requests at shutdown


class Refusal(Exception):
    """A refused request: HTTP status and message in one line."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, dict(headers or {})


class Body(GenerationConfig):
    """The body of /generate and /trace: a source, and generation options that differ from the model's own."""

    source: str | None = Field(None, description="a text")
    sources: list[str] | None = Field(None, description="several texts (not to stream or trace)")
    features: Any = Field(None, description="a feature matrix, a list of frames", json_schema_extra=MATRIX)
    task: str | None = Field(None, description="which task of a mixture the source is of")
    prefix: str | None = Field(None, description="put before the source (default: as in training)")
    what_if: bool = Field(False, description="take each part of the source away in turn (/trace only)")
    stream: bool = Field(False, description="answer token by token, as server-sent events (/generate only)")
    n_best: int = Field(1, ge=1, description="outputs per source, best first (/generate only)")
    scores: bool = Field(False, description="with log-probabilities, source bits and alignment (/generate only)")


OPTIONS = set(GenerationConfig.model_fields) - {OWN}


@dataclass(frozen=True)
class Asked:
    """A checked request."""

    sources: Dataset
    slots: int  # memory positions (tokens or frames of the sources) × beams
    options: GenerationConfig
    stream: bool
    n_best: int = 1
    scores: bool = False
    what_if: bool = False


def parse(
    model: Model, limits: Limits, body: bytes, kind: str, query: Mapping[str, str], *, one: bool = False
) -> Asked:
    """Parse a body of content type `kind`; with `one`, only a single source is accepted.

    Raises RequestError for what the model cannot do, Refusal for other errors.
    """
    given: dict[str, Any]
    if kind in NPY:
        given = {**query, "features": parse_matrix(body, "body", "features")}
    elif kind == JSON:
        given = _object(body)
    else:
        wanted = f"should be {JSON}, or {NPY[0]} for a .npy, not {kind or 'empty'}"
        raise Refusal(415, f"Content-Type: {wanted}")
    return accept(model, limits, given, one=one)


def accept(model: Model, limits: Limits, given: dict[str, Any], *, one: bool = False) -> Asked:
    """Check the fields of a request. Raises as `parse`."""
    request = _checked(model, given)
    options = _options(model, limits, request)
    found = _sources(model, limits, request)
    if len(found) > 1 and (one or request.stream):
        raise Refusal(422, f"sources: give one source to {'stream' if request.stream else 'trace'}, not {len(found)}")
    if (one or request.stream) and (request.n_best > 1 or request.scores):
        raise Refusal(422, f"{'scores' if request.scores else 'n_best'}: goes with /generate, without stream")
    if request.what_if and (not one or request.stream):
        raise Refusal(422, "what_if: goes with /trace")
    slots = _slots(model, found) * candidates(options, request.n_best)
    return Asked(found, slots, options, request.stream, request.n_best, request.scores, request.what_if)


def _object(body: bytes) -> dict[str, Any]:
    try:
        given = from_json(body)
    except ValueError as error:
        raise Refusal(400, f"body: is not JSON ({str(error).splitlines()[0][:100]})") from None
    if not isinstance(given, dict):
        raise Refusal(422, "body: should be a JSON object with source, sources or features")
    return given


def _checked(model: Model, given: dict[str, Any]) -> Body:
    """The body, with the model's own options as defaults."""
    if OWN in given:
        raise Refusal(422, f"{OWN}: is the server's to choose; leave it out")
    named = [name for name in ("source", "sources", "features") if given.get(name) is not None]
    if len(named) != 1:
        raise Refusal(422, f"give one of source, sources and features, not {' and '.join(named) or 'none'}")
    try:
        request = Body.model_validate(model.changed(given))
    except ValidationError as error:
        problem = schema.explain(error, Body, "request").removeprefix("request: ").removeprefix("recipe: ")
        raise Refusal(422, problem) from None
    if request.stream and "mbr" not in given:  # which chooses among whole outputs
        request = request.model_copy(update={"mbr": "none"})
    if "beams" in given or request.sample:
        return request
    beams = 1 if request.stream else max(request.beams, request.n_best)
    return request.model_copy(update={"beams": beams})


def _options(model: Model, limits: Limits, request: Body) -> GenerationConfig:
    for name, most in (("beams", limits.beams), ("max_new_tokens", limits.new_tokens)):
        # The model's own options may exceed the limits: they are the default.
        if getattr(request, name) > max(most, getattr(model.generation, name)):
            raise Refusal(422, f"{name} should be at most {most} here, not {getattr(request, name)}")
    for name, most in (("n_best", limits.beams), ("mbr_candidates", limits.beams)):
        if getattr(request, name) > most and (name == "n_best" or (request.mbr != "none" and request.sample)):
            raise Refusal(422, f"{name} should be at most {most} here, not {getattr(request, name)}")
    if request.mbr == "comet":
        raise Refusal(422, "mbr: comet is no score of this server; take chrf or bleu")
    if request.stream and request.mbr != "none":
        raise Refusal(422, "mbr: chooses among whole outputs; it does not go with stream")
    if request.stream and request.beams > 1 and not request.sample:
        raise Refusal(422, f"beams should be 1 to stream, not {request.beams}: a beam search is known at its end only")
    return model.options(**{name: getattr(request, name) for name in OPTIONS})


def _sources(model: Model, limits: Limits, request: Body) -> Dataset:
    """Read as the recipe of the run reads its own."""
    given: Any
    if request.features is not None:
        given = [_matrix(request.features)]
    else:
        given = [request.source] if request.source is not None else request.sources
        if len(given) > limits.sources:
            raise Refusal(422, f"sources: should be at most {limits.sources}, not {len(given)}")
        longest = max((len(text) for text in given), default=0)
        if longest > LONGEST_TOKEN * model.data.max_source:
            raise _too_long("source", f"{longest:,} characters", f"{model.data.max_source:,} tokens")
    reading = SourceRequest(model.data, request.task, prefix=request.prefix)
    try:
        reading.like()
    except RequestError as error:  # of the task; what else is wrong is the model's to refuse
        raise Refusal(422, str(error).replace("--task", "task")) from None
    found = reading.sources(given)
    return replace(found, name="features" if found.dims else "source")


def _matrix(given: Any) -> np.ndarray:
    """Lists of numbers as a (frames, dims) float32 matrix."""
    try:
        matrix = np.asarray(given)
    except ValueError:
        matrix = np.empty(0, dtype=object)  # rows of several lengths
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        raise Refusal(422, "features: should be a list of frames, each a list of as many numbers")
    with np.errstate(over="ignore"):  # values beyond float32 become infinite, and are refused
        return matrix.astype(np.float32)


def _slots(model: Model, sources: Dataset) -> int:
    """Number of tokens or frames in the sources. Raises Refusal if the model would truncate any."""
    encoded = model.lay_out(sources)
    if sources.dims:
        if sources[0].frames > encoded.max_frames:
            raise _too_long("features", f"{sources[0].frames:,} frames", f"{encoded.max_frames:,}")
    else:
        for i, ids in enumerate(model.tokenizer.encode_batch([example.source for example in sources])):
            if len(ids) > model.data.max_source and not sources[i].turns:  # of conversations, old turns are left out
                name = "source" if len(sources) == 1 else f"sources.{i}"
                raise _too_long(name, f"{len(ids):,} tokens", f"{model.data.max_source:,}")
    return int(encoded.source_lengths.sum())


def _too_long(name: str, given: str, most: str) -> Refusal:
    option = "--max-frames" if name == "features" else "--max-source"
    return Refusal(422, f"{name}: is {given} long; this model reads {most} (as the server was started: {option})")
