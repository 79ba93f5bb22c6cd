"""Errors that a user can cause, and warnings to the user."""

from __future__ import annotations

import re
import warnings

# Characters that move the cursor, end a line or change the writing direction, and so hide parts of a message.
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


def printable(text: str) -> str:
    """A text on one line, its control characters written as escapes: `\\t`, `\\x1b`, `\\u2028`."""

    def escaped(found: re.Match[str]) -> str:
        code = ord(found[0])
        return _SHORT.get(found[0]) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")

    return _UNSEEN.sub(escaped, text)


class RequestError(ValueError):
    """A wrong request: one line that names the file, line or key and what would be right.

    The command line prints it on standard error and exits with status 2; the library raises it. Control characters
    in quoted files and names are escaped. `kind` is the message without particulars, so that errors of one kind can be
    counted.
    """

    def __init__(self, message: object = "", kind: str = "") -> None:
        super().__init__(printable(str(message)))
        self.kind = kind or str(self)


class FaultyData(RequestError):
    """Contents of a readable file that cannot be trained on."""


class NotFinite(RequestError):
    """A weight, a logit or a loss that is NaN or infinite, so that no figure computed from it means anything."""


class ElsewhereError(RequestError):
    """The end of this process since another process of the same training failed, which tells why.

    `status` is the exit status of both.
    """

    def __init__(self, status: int = 2) -> None:
        super().__init__("another process of this training failed, and tells why")
        self.status = status


class GoneError(RequestError):
    """Another process of the same training is gone, or does not answer: whoever starts them may start all anew."""


class Notice(UserWarning):
    """A warning to the user; the work goes on, and the command line prints it on standard error."""


class DataWarning(Notice):
    """A warning that some of the user's data is not used as it stands; the work goes on."""


def tell(text: str) -> None:
    """Warn the user in one line: a `Notice` through Python's warnings, once per text and process."""
    warnings.warn(text, Notice, stacklevel=2)
