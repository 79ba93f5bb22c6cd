"""Run by torchrun: a training whose second process cannot make its fifth batch, as of a file that only it misses."""

from __future__ import annotations

import os
import sys
from typing import Any

from sourcewise.cli import main
from sourcewise.errors import RequestError
from sourcewise.training.plan import Plan

if __name__ == "__main__":
    made, calls = Plan.batch, [0]

    def batch(self: Plan, rows: Any) -> Any:
        calls[0] += 1
        if calls[0] == 5 and os.environ["RANK"] == "1":
            raise RequestError("clip7.npy: no such file")
        return made(self, rows)

    Plan.batch = batch  # type: ignore[method-assign]
    sys.exit(main(["train", sys.argv[1]]))
