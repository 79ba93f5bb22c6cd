"""Recordings as samples, or as log-mel features: Whisper's, by transformers' own extractor, without weights.

80 or 128 mel bands, 16,000 samples a second, a frame each 10 ms. Other rates are resampled, channels are averaged; both
are told by the readers. Frames are counted from the header of the file.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from sourcewise.data.formats.store import Header, Source, seconds_of

RATE = 16_000
HOP = 160  # samples a frame
MELS = 80


class AudioFile:
    """One array of (frames, mel bands), or (samples, 1)."""

    _width = MELS

    def __init__(self, source: Source) -> None:
        self._source = source
        try:
            found = soundfile.info(_readable(source))
        except soundfile.LibsndfileError as error:
            if isinstance(source, Path):
                with open(source, "rb"):  # raises OSError for a file that is not there
                    pass
            raise ValueError(f"is no readable recording ({error.error_string})") from None
        self._rate, self._count = found.samplerate, found.frames
        self._remarks: tuple[str, ...] = ()
        if found.samplerate != RATE:
            self._remarks += (f"are sampled at {found.samplerate:,} Hz: resampled to {RATE:,}",)
        if found.channels > 1:
            self._remarks += (f"have {found.channels} channels: averaged",)

    def keys(self) -> Sequence[str]:
        """One, without a name; a part has the key START:END, in seconds."""
        return [""]

    def heard(self, width: int) -> AudioFile:
        """The same recording as frames of this width: 1 for samples, else as many mel bands."""
        other = copy.copy(self)
        other._width = width
        return other

    def _samples(self, key: str) -> tuple[int, int]:
        """The first sample of a part, and the one after its last."""
        if not key:
            return 0, self._count
        first, last = seconds_of(key)
        start, stop = round(first * self._rate), self._count if last is None else round(last * self._rate)
        if start >= stop or stop > self._count + self._rate // 100:  # segments are rounded to hundredths
            raise ValueError(f"is {self._count / self._rate:.2f} s long; it has no part {key} (seconds)")
        return start, min(stop, self._count)

    def header(self, key: str) -> Header:
        """Shape and type, from the number of samples."""
        start, stop = self._samples(key)
        count = -(-(stop - start) * RATE // self._rate)
        what = "samples" if self._width == 1 else f"Whisper's log-mel features of {self._width} bands"
        remarks = (f"are recordings: read as {what}", *self._remarks)
        frames = count if self._width == 1 else count // HOP
        return Header((frames, self._width), np.dtype(np.float32), remarks)

    def read(self, key: str, rows: slice) -> np.ndarray:
        """These frames; the whole part is read for them, since its loudest frame sets the scale."""
        start, stop = self._samples(key)
        file = _readable(self._source)
        samples, _ = soundfile.read(file, start=start, stop=stop, dtype="float32", always_2d=True)
        heard = resampled(samples.mean(axis=1), self._rate)
        return heard[rows, None] if self._width == 1 else log_mel(heard, self._width)[rows]


def _readable(source: Source) -> Any:
    if isinstance(source, Path):
        return str(source)
    source.seek(0)
    return source


def resampled(samples: np.ndarray, rate: int) -> np.ndarray:
    """Samples at 16,000 a second, by a polyphase filter."""
    if rate == RATE:
        return samples
    from scipy.signal import resample_poly

    divisor = int(np.gcd(rate, RATE))
    found: np.ndarray = resample_poly(samples, RATE // divisor, rate // divisor).astype(np.float32)
    return found


def log_mel(samples: np.ndarray, bands: int = MELS) -> np.ndarray:
    """The (frames, bands) log-mel features of samples (one channel, 16,000 a second), without padding."""
    if len(samples) < HOP:
        return np.zeros((0, bands), np.float32)
    plain = {"padding": False, "truncation": False, "return_tensors": "np"}
    found: np.ndarray = _extractor(bands)(samples, sampling_rate=RATE, **plain)["input_features"][0]
    return np.ascontiguousarray(found.T, np.float32)


@functools.cache
def _extractor(bands: int) -> Any:
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(feature_size=bands, sampling_rate=RATE, hop_length=HOP)
