"""The command line: words → plain values → `api`; nothing below knows argparse.

`parser.py` parses the words and reports errors in one line; `commands.py` lists the commands. Heavy modules are
imported only by the commands that need them, so help is instant.
"""

from __future__ import annotations

import sys

from sourcewise.cli import commands, parser

__all__ = ["commands", "main"]


def main(words: list[str] | None = None) -> int:
    """`sourcewise WORDS…`; gives the exit status."""
    return parser.main(sys.argv[1:] if words is None else words)
