"""Recordings as log-mel features: Whisper's, by transformers' own extractor, without weights.

80 mel bands, 16,000 samples a second, a frame each 10 ms. Other rates are resampled, channels are averaged; both are
told by the readers. Frames are counted from the header of the file.
"""

from __future__ import annotations

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
    """One array of (frames, mel bands)."""

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
        return Header((-(-(stop - start) * RATE // self._rate) // HOP, MELS), np.dtype(np.float32), self._remarks)

    def read(self, key: str, rows: slice) -> np.ndarray:
        """These frames; the whole part is read for them, since its loudest frame sets the scale."""
        return log_mel(self.samples(key))[rows]

    def samples(self, key: str = "") -> np.ndarray:
        """The samples (n,) of a part: one channel, float32, 16,000 a second."""
        start, stop = self._samples(key)
        file = _readable(self._source)
        samples, _ = soundfile.read(file, start=start, stop=stop, dtype="float32", always_2d=True)
        return resampled(samples.mean(axis=1), self._rate)


def read_samples(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """The samples (n,) of a recording, as `AudioFile.samples`, and what was converted. Raises ValueError, OSError."""
    file = AudioFile(path)
    return file.samples(), file.header("").remarks


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


def log_mel(samples: np.ndarray) -> np.ndarray:
    """The (frames, 80) log-mel features of samples (one channel, 16,000 a second), without padding."""
    if len(samples) < HOP:
        return np.zeros((0, MELS), np.float32)
    found: np.ndarray = _extractor()(samples, sampling_rate=RATE, padding=False, truncation=False, return_tensors="np")[
        "input_features"
    ][0]
    return np.ascontiguousarray(found.T, np.float32)


@functools.cache
def _extractor() -> Any:
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(feature_size=MELS, sampling_rate=RATE, hop_length=HOP)
