"""The one error a user can cause, and what a user is told without an error."""

from __future__ import annotations

import re
import warnings

# What moves the cursor, ends a line or turns the writing direction, and so hides what a message says.
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


def printable(text: str) -> str:
    """A text on one line, its control characters written as escapes: `\\t`, `\\x1b`, `\\u2028`."""

    def escaped(found: re.Match[str]) -> str:
        code = ord(found[0])
        return _SHORT.get(found[0]) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")

    return _UNSEEN.sub(escaped, text)


class RequestError(ValueError):
    """The request was wrong: one line that names the file, line or key and what would be right.

    The command line prints it on standard error and exits with status 2; the library raises it. What it quotes of
    files and names cannot break the line: control characters are escaped. `kind` is what is wrong without the
    particulars, so that many of a kind can be counted.
    """

    def __init__(self, message: object = "", kind: str = "") -> None:
        super().__init__(printable(str(message)))
        self.kind = kind or str(self)


class FaultyData(RequestError):
    """The files are there and can be opened, but what one of them holds cannot be trained on."""


class NotFinite(RequestError):
    """A weight, a logit or a loss is NaN or infinite: nothing true can be said with it."""


class Notice(UserWarning):
    """What a user should know although the work goes on; the command line prints it on standard error."""


class DataWarning(Notice):
    """Something of the user's data is not taken as it stands; the work goes on."""


def tell(text: str) -> None:
    """Tell the user something in a line, through Python's warnings: a `Notice`, once a text and process."""
    warnings.warn(text, Notice, stacklevel=2)
