"""Several streams of features (rgb and pose, say), joined frame by frame into one matrix per clip."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sourcewise.data.readers.matrices import MatrixStore
from sourcewise.errors import FaultyData, RequestError


class JoinedStore:
    """Like a `MatrixStore`, of clips whose frames are those of all streams side by side, in order of name.

    A clip whose streams differ in length is bad.
    """

    def __init__(self, streams: Mapping[str, MatrixStore]) -> None:
        self._streams = dict(streams)
        first = next(iter(self._streams.values()))
        self.clips = first.clips
        self.bad: dict[int, RequestError] = {}
        self.image = None
        self.widths = {name: store.dims for name, store in self._streams.items()}
        self.dims = sum(self.widths.values())
        self.frames = list(first.frames)
        self.cached = all(store.cached for store in self._streams.values())
        for place, clip in enumerate(self.clips):
            error = next((s.bad[place] for s in self._streams.values() if place in s.bad), None)
            lengths = {name: store.frames[place] for name, store in self._streams.items()}
            if error is None and len(set(lengths.values())) > 1:
                said = ", ".join(f"{name} has {count} frames" for name, count in lengths.items())
                what = f"{clip.where}: {said}; streams are joined frame by frame, so they must be of one length"
                error = FaultyData(what, "streams of different lengths")
            if error is not None:
                self.bad[place], self.frames[place] = error, 0

    def notes(self) -> list[tuple[int, str]]:
        """Remarks of all streams, and how they are joined."""
        found = [(i, f"{name}: {what}") for name, store in self._streams.items() for i, what in store.notes()]
        widths = " + ".join(f"{name} ({store.dims})" for name, store in self._streams.items())
        return [(0, f"frames are {self.dims} wide: {widths}"), *found] if self.clips else found

    def __call__(self, index: int) -> np.ndarray:
        """A new (frames, dims) float32 matrix of all streams. Raises RequestError."""
        return np.concatenate([store(index) for store in self._streams.values()], axis=1)

    def __len__(self) -> int:
        return len(self.clips)
