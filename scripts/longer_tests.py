"""List the tests that take more than a second, for `make test` to leave to `make test-longer`.

    pytest -m "not slow" --durations=0 --durations-min=0.3 > LOG
    python scripts/longer_tests.py LOG > tests/longer.txt

What is meant is a core of its own: on a busy machine everything takes longer.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

SECONDS = 1.0
KEPT = ("tests/training/test_published_tables.py::",)  # `make test` holds a small form of each published table


def longer(lines: Iterable[str], seconds: float = SECONDS) -> list[str]:
    """The tests whose call takes more than these seconds, as pytest names them, in order."""
    found = (re.match(r"\s*([\d.]+)s call\s+(\S.*?)\s*$", line) for line in lines)
    named = {each[2] for each in found if each and float(each[1]) > seconds}
    return sorted(each for each in named if not each.startswith(KEPT))


if __name__ == "__main__":
    print("\n".join(longer(Path(sys.argv[1]).read_text(encoding="utf-8").splitlines())))
