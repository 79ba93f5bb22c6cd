"""Two files of parallel lines → one table of pairs."""

from __future__ import annotations

import json
from itertools import zip_longest
from pathlib import Path

from sourcewise.errors import RequestError
from sourcewise.runtime.files import writing


def write_table(table: Path, sources: Path, targets: Path) -> int:
    """Writes `table` (JSON lines with source and target) of two files of as many lines each; gives their number.

    Lines end at line feeds, as JoeyNMT reads them. Raises RequestError for a file that cannot be read, and where one
    has more lines than the other.
    """
    rows = 0
    try:
        with (
            sources.open(encoding="utf-8", newline="\n") as ours,
            targets.open(encoding="utf-8", newline="\n") as theirs,
            writing(table) as write,
        ):
            for source, target in zip_longest(ours, theirs):
                if source is None or target is None:
                    raise _uneven(sources, targets)
                row = {"source": source.rstrip("\r\n"), "target": target.rstrip("\r\n")}
                write(json.dumps(row, ensure_ascii=False) + "\n")
                rows += 1
    except OSError as error:
        raise RequestError(f"{error.filename}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RequestError(f"{sources} and {targets}: not UTF-8 after row {rows:,} ({error.reason})") from None
    return rows


def _uneven(sources: Path, targets: Path) -> RequestError:
    """Says how many lines each file has."""
    counts = [sum(1 for _ in path.open("rb")) for path in (sources, targets)]
    return RequestError(f"{sources} has {counts[0]:,} lines and {targets} {counts[1]:,}; line by line they are pairs")
