"""Poses in .pose files (pose-format, versions 0.1 and 0.2): the points of the first person as one vector per frame.

A frame has the coordinates of every point in the order of the file (x, y and, if there, z), without the confidence.
A point that was not seen has confidence 0 and is 0 in all coordinates. A reader of our own, since the library brings a
video decoder along for what is a header and three arrays.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sourcewise.data.formats.store import Header, Source, seconds_of


class PoseFile:
    """One array of (frames, points × coordinates); a part has the key START:END, in seconds."""

    def __init__(self, source: Source) -> None:
        self._source = source
        data = source.read_bytes() if isinstance(source, Path) else source.read()
        try:
            self._values, people, self._rate = _points(data)
        except (struct.error, IndexError):
            raise ValueError("is no whole .pose file; write it again") from None
        self._remarks = ("have several persons: the first is read",) if people > 1 else ()

    def keys(self) -> Sequence[str]:
        """One, without a name."""
        return [""]

    def header(self, key: str) -> Header:
        """Shape and type."""
        part = self._part(key)
        return Header(part.shape, part.dtype, self._remarks)

    def _part(self, key: str) -> np.ndarray:
        """The frames of a part, from the one that holds its beginning to the one that holds its end."""
        if not key:
            return self._values
        first, last = seconds_of(key)
        start = math.floor(first * self._rate + 1e-6)
        stop = len(self._values) if last is None else math.ceil(last * self._rate - 1e-6)
        if start >= stop or stop > len(self._values) + 1:
            raise ValueError(f"is {len(self._values) / self._rate:.2f} s long; it has no part {key} (seconds)")
        return self._values[start:stop]

    def read(self, key: str, rows: slice) -> np.ndarray:
        """These frames."""
        return self._part(key)[rows]


class _Reader:
    """Reads numbers and texts one after another."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def unpack(self, code: str) -> tuple[float, ...]:
        found = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return found

    def text(self) -> bytes:
        (length,) = self.unpack("H")
        self.at += int(length)
        return self.data[self.at - int(length) : self.at]

    def floats(self, *shape: int) -> np.ndarray:
        count = int(np.prod(shape))
        if len(self.data) - self.at < 4 * count:
            raise ValueError(f"is cut off: {len(self.data) - self.at:,} of {4 * count:,} bytes; write it again")
        self.at += 4 * count
        return np.frombuffer(self.data, "<f4", count, self.at - 4 * count).reshape(shape)


def _points(data: bytes) -> tuple[np.ndarray, int, float]:
    """The coordinates of the first person, how many persons there are, and frames a second."""
    read = _Reader(data)
    (version,) = read.unpack("f")
    version = round(version, 3)
    if version not in (0.1, 0.2):
        raise ValueError(f"is no .pose file of version 0.1 or 0.2 (it says {version:g})")
    read.unpack("HHH")  # width, height, depth
    points, widest = 0, 0
    for _ in range(int(read.unpack("H")[0])):
        read.text()
        widest = max(widest, len(read.text()) - 1)  # "XYZC"
        of_points, limbs, colors = (int(each) for each in read.unpack("HHH"))
        for _ in range(of_points):
            read.text()
        read.at += 4 * limbs + 6 * colors
        points += of_points
    if version == 0.1:
        rate, frames, people = read.unpack("HHH")
    else:
        rate, frames, people = read.unpack("fIH")
    if version == 0.1 and people and points:  # its count of frames is too small a number for long clips
        there = (len(data) - read.at) // int(4 * people * points * (widest + 1))
        frames = there if there % 65536 == frames else frames
    if people < 1 or not points or widest < 1:
        raise ValueError("holds no person; remove its line or estimate its pose again")
    places = read.floats(int(frames), int(people), points, widest)[:, 0]
    seen = read.floats(int(frames), int(people), points)[:, 0]
    values = np.where(seen[..., None] > 0, places, np.float32(0))
    return values.reshape(int(frames), points * widest), int(people), rate or 1.0
