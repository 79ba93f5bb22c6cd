"""The command line. Its commands are in `commands/`; `command_line.py` parses their words and tells the errors.

Nothing heavy is imported before a command needs it, so that help is instant.
"""

from __future__ import annotations

import sys

from sourcewise import command_line, commands

__all__ = ["commands", "main"]


def main(words: list[str] | None = None) -> int:
    """`sourcewise WORDS…`; gives the exit status."""
    return command_line.main(sys.argv[1:] if words is None else words)
