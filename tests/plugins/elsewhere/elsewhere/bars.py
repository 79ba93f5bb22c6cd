from collections.abc import Iterator
from pathlib import Path

from sourcewise.data.readers.tables import Reader


def read(path: Path) -> Iterator[dict[str, str]]:
    """`source ||| target` in each line, as word aligners want their pairs."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        source, bars, target = line.partition(" ||| ")
        if not bars:
            raise ValueError(f"line {number}: no ' ||| ' between source and target")
        yield {"source": source, "target": target}


BARS = Reader(".bars", read)
