"""The escapes of translations.tsv: a text of any characters on one line, in one cell, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

COLUMNS = ("id", "reference", "output")

# Everything a reader of lines or columns could take for a separator, the mark of an escape, and what no text has.
_UNSAFE = re.compile(r"[\\\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
_ESCAPED = re.compile(r"\\(?:[\\tnr]|u[0-9a-f]{4})")
_SHORT = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_LONG = {escape: text for text, escape in _SHORT.items()}


def escape(text: str) -> str:
    """A text without tabs, line ends and control characters: these, and backslashes, are escapes."""
    return _UNSAFE.sub(lambda found: _SHORT.get(found[0]) or f"\\u{ord(found[0]):04x}", text)


def unescape(text: str) -> str:
    """The text that `escape` was given; other backslashes stay."""
    return _ESCAPED.sub(lambda found: _LONG.get(found[0]) or chr(int(found[0][2:], 16)), text)


def unescaped(columns: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The columns with their escapes undone; as they are where a backslash is no escape: somebody else wrote them."""
    if any("\\" in _ESCAPED.sub("", text) for texts in columns.values() for text in texts if "\\" in text):
        return {name: list(texts) for name, texts in columns.items()}
    return {name: [unescape(text) if "\\" in text else text for text in texts] for name, texts in columns.items()}
