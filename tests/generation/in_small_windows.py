"""Run by torchrun or alone: a command of sourcewise that takes windows of few sources, perhaps slowly."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from sourcewise.cli import main
from sourcewise.data import windows
from sourcewise.generation.written import Writer

if __name__ == "__main__":
    windows.WINDOW = int(os.environ.get("WINDOW", "8"))
    lines, pause = Writer.lines, float(os.environ.get("PAUSE", "0"))

    def slowly(self: Writer, *words: Any) -> Any:
        time.sleep(pause)
        return lines(self, *words)

    Writer.lines = slowly  # type: ignore[method-assign]
    sys.exit(main(sys.argv[1:]))
