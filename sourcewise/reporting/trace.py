"""trace.html: a trace as a self-contained page; other pages draw traces by the same script.

`traces.js` has one function, drawTrace(element, data), and `trace.css` its style, in the colours of `report.css`; the
data is a trace's JSON, embedded with `script_json`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from sourcewise.generation.trace import Trace, bits_text
from sourcewise.reporting.pages import template
from sourcewise.runtime.files import write_atomically

if TYPE_CHECKING:
    from markupsafe import Markup


MOST_WEIGHTS = 1_000_000  # attention weights in a page, about four megabytes; above, averages over heads


def write_trace(trace: Trace, path: Path | str, beside: Trace | None = None) -> Path:
    """Write a trace as a page, atomically, and return its path; `beside` is another model's. Raises RequestError."""
    path = Path(path)
    write_atomically(path, render(trace, beside))
    return path


def render(trace: Trace, beside: Trace | None = None) -> str:
    """The page of a trace as HTML, or of two, side by side."""
    traces = [trace] if beside is None else [trace, beside]
    return template("trace.html.j2").render(
        traces=traces,
        facts=facts,
        data=[script_json(each.to_json(MOST_WEIGHTS)) for each in traces],
        written=time.strftime("%Y-%m-%d %H:%M"),
    )


def script_json(json: str) -> Markup:
    """JSON for a <script> element: every `<` is escaped, so that no text can end the element or begin a comment."""
    from markupsafe import Markup

    return Markup(json.replace("<", "\\u003c"))


def facts(trace: Trace) -> list[str]:
    """Facts of the output in words: model, search, length, source bits."""
    known = [trace.model] if trace.model else []
    known += [trace.search, "ended by itself" if trace.finished else "cut at the maximum length"]
    bits = bits_text(trace.bits)
    return [*known, f"{bits} source bits per token"] if bits else known
