"""The escapes of translations.tsv, by which any text fits into one line and one cell."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

COLUMNS = ("id", "reference", "output")  # of translations.tsv; further references are reference2, reference3, …

# Characters that a reader could take for a separator, the backslash of escapes, and characters that no text has.
_UNSAFE = re.compile(r"[\\\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
_ESCAPED = re.compile(r"\\(?:[\\tnr]|u[0-9a-f]{4})")
_SHORT = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_LONG = {escape: text for text, escape in _SHORT.items()}


def columns_of(others: int) -> tuple[str, ...]:
    """The columns of a translations.tsv whose examples have up to so many further references."""
    return (*COLUMNS, *(f"reference{number + 2}" for number in range(others)))


def are_ours(columns: Sequence[str]) -> bool:
    """Whether a table has the columns of translations.tsv."""
    return tuple(columns) == columns_of(len(columns) - len(COLUMNS))


def escape(text: str) -> str:
    """The text with tabs, line ends, control characters and backslashes escaped."""
    return _UNSAFE.sub(lambda found: _SHORT.get(found[0]) or f"\\u{ord(found[0]):04x}", text)


def unescape(text: str) -> str:
    """The inverse of `escape`; other backslashes are unchanged."""
    return _ESCAPED.sub(lambda found: _LONG.get(found[0]) or chr(int(found[0][2:], 16)), text)


def unescaped(columns: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The columns without escapes; unchanged if any backslash is no escape, so that another program wrote them."""
    if any("\\" in _ESCAPED.sub("", text) for texts in columns.values() for text in texts if "\\" in text):
        return {name: list(texts) for name, texts in columns.items()}
    return {name: [unescape(text) if "\\" in text else text for text in texts] for name, texts in columns.items()}
