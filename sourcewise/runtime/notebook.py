"""How an answer shows itself in a notebook: small tables of HTML, with nothing fetched and everything escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

COLOURS = {"error": "#b3261e", "warning": "#8a5a00", "note": "#3b5b92"}
_CELL = "padding:2px 10px 2px 0;text-align:left;vertical-align:top"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], foot: str = "") -> str:
    """A title, a table and a line below it. A cell that is a level of a finding has its colour."""
    head = "".join(f'<th style="{_CELL}">{escape(column)}</th>' for column in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    grid = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if rows else ""
    below = f'<div style="opacity:.7">{escape(foot)}</div>' if foot else ""
    return f"<div><b>{escape(title)}</b>{grid}{below}</div>"


def shaded(title: str, pieces: Sequence[tuple[str, float, str]], foot: str = "") -> str:
    """A text in pieces, each with a strength from 0 to 1 and words that appear under the pointer."""
    spans = "".join(
        f'<span title="{escape(words)}" style="background:rgba(0,114,178,{0.75 * max(0.0, min(1.0, strength)):.2f});'
        f'white-space:pre-wrap">{escape(text)}</span>'
        for text, strength, words in pieces
    )
    below = f'<div style="opacity:.7">{escape(foot)}</div>' if foot else ""
    return f"<div><b>{escape(title)}</b><div>{spans}</div>{below}</div>"


def _cell(text: str) -> str:
    colour = f";color:{COLOURS[text]};font-weight:bold" if text in COLOURS else ""
    return f'<td style="{_CELL}{colour};white-space:pre-wrap">{escape(text)}</td>'
