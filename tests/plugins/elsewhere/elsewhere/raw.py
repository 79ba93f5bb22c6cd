"""Files of plain float32 numbers, four to a frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sourcewise.data.formats.store import Arrays, Format, Source

DIMS = 4


def _open(source: Source) -> Arrays:
    data = source.read_bytes() if isinstance(source, Path) else source.read()
    if len(data) % (4 * DIMS):
        raise ValueError(f"is cut off: {len(data)} bytes are no frames of {DIMS} numbers")
    return Arrays({"": np.frombuffer(data, "<f4").reshape(-1, DIMS)})


RAW = Format((".raw",), _open)
