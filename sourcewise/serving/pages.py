"""The pages at / and /docs, each a self-contained file."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import sourcewise
from sourcewise.config import GenerationConfig
from sourcewise.data.open import USES
from sourcewise.generation.model import Model
from sourcewise.reporting.pages import template
from sourcewise.reporting.trace import script_json
from sourcewise.serving.asked import JSON, Limits

if TYPE_CHECKING:
    pass

# Kind of search ("" for all) → options on the page, with their labels.
OFFERED = {
    "beam": {"beams": "beams", "length_penalty": "length penalty"},
    "sampling": {"temperature": "temperature", "top_k": "top k", "top_p": "top p", "seed": "seed"},
    "": {"max_new_tokens": "most tokens", "min_new_tokens": "fewest tokens", "no_repeat_ngram": "n-gram block"},
}
INLINED = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def render_page(model: Model, limits: Limits, guarded: bool) -> tuple[str, str]:
    """The page at /, and a Content-Security-Policy that allows only its own scripts and its own server."""
    mixtures = [use for use in USES if isinstance(getattr(model.data, use), list)]
    tasks = list(dict.fromkeys(config.task for use in mixtures for config in model.data.sets(use)))
    given = model.generation.model_dump()
    facts = {"dims": model.network.dims, "guarded": guarded, "bytes": limits.body}
    page = template("page.html.j2", "sourcewise.serving").render(
        name=PurePath(model.name).name or "a model",
        dims=model.network.dims,
        tasks=tasks,
        searches=[(search, _offered(names, given)) for search, names in OFFERED.items()],
        facts=script_json(json.dumps(facts)),
        version=sourcewise.__version__,
    )
    hashed = [(tag, hashlib.sha256(text.encode()).digest()) for tag, text in INLINED.findall(page)]
    sources = [f"{tag}-src 'sha256-{base64.b64encode(digest).decode()}'" for tag, digest in hashed]
    own = "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return page, "; ".join(["default-src 'none'", *sources, own])


def _offered(names: dict[str, str], given: dict[str, Any]) -> list[tuple[str, str, Any, str]]:
    """(option, label, the model's own value, description) of each option."""
    fields = GenerationConfig.model_fields
    # Beam search is offered with several beams, even if the model's own search is greedy.
    given = {**given, "beams": given["beams"] if given["beams"] > 1 else 4}
    return [(name, called, given[name], fields[name].description or "") for name, called in names.items()]


def render_docs(openapi: dict[str, Any]) -> str:
    """The page at /docs, from the description that `FastAPI.openapi` returns."""
    routes = [
        {
            "method": method.upper(),
            "path": path,
            "description": operation.get("description", ""),
            "fields": _fields(operation),
            "answers": {status: answer["description"] for status, answer in operation["responses"].items()},
        }
        for path, operations in openapi["paths"].items()
        for method, operation in operations.items()
    ]
    return template("docs.html.j2", "sourcewise.serving").render(info=openapi["info"], routes=routes)


def _fields(operation: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(name, type, description) of the fields of a body."""
    content = operation.get("requestBody", {}).get("content", {})
    properties = content.get(JSON, {}).get("schema", {}).get("properties", {})
    return [(name, _type(field), field.get("description", "")) for name, field in properties.items()]


def _type(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return _type(next(each for each in field["anyOf"] if each.get("type") != "null"))
    inner = field.get("items")
    return f"list of {_type(inner)}" if inner else str(field.get("type", "any")).replace("string", "text")
