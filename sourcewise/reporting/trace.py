"""trace.html: a trace that opens anywhere, in one file; and what other pages need to draw one.

`trace.js` has one function, drawTrace(element, data), and `trace.css` its style, in the colours of `report.css`; the
data is a trace's JSON, embedded with `script_json`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from sourcewise.generation.trace import Trace, bits_text
from sourcewise.runtime.files import write_atomically

if TYPE_CHECKING:
    from markupsafe import Markup


MOST_WEIGHTS = 1_000_000  # of a page, about four megabytes; above, averages over heads


def write_trace(trace: Trace, path: Path | str) -> Path:
    """Write a trace as a page, whole or not at all, and return its path. Raises RequestError."""
    path = Path(path)
    write_atomically(path, render(trace))
    return path


def render(trace: Trace) -> str:
    """The page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sourcewise.reporting"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("trace.html.j2").render(
        trace=trace,
        facts=facts(trace),
        data=script_json(trace.to_json(MOST_WEIGHTS)),
        written=time.strftime("%Y-%m-%d %H:%M"),
    )


def script_json(json: str) -> Markup:
    """JSON that may stand in a <script> element: no `<` of its texts is left to end it or to begin a comment."""
    from markupsafe import Markup

    return Markup(json.replace("<", "\\u003c"))


def facts(trace: Trace) -> list[str]:
    """What is to be known of the output as a whole."""
    known = [trace.model] if trace.model else []
    known += [trace.search, "ended by itself" if trace.finished else "cut at the longest length"]
    bits = bits_text(trace.bits)
    return [*known, f"{bits} source bits a token"] if bits else known
