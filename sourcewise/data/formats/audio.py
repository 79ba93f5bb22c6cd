"""Recordings as samples, as log-mel features of Whisper's, or as Kaldi's filter banks.

16,000 samples a second; other rates are resampled, channels are averaged; both are told by the readers. Frames are
counted from the header of the file.

- `log-mel`, `log-mel-128`: 80 or 128 features each 10 ms, by transformers' own extractor, without weights.
- `fbank`: 80 Kaldi filter banks of 25 ms each 10 ms, of samples from -32768 to 32767, without dither: those of
  fairseq, ESPnet and Kaldi.
- `samples`: frames of width 1, for a model or an encoder that reads them.
- `own:FOLDER`: what the processor in a model's folder makes of them.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from sourcewise.config.data import OWN, Sounds
from sourcewise.data.formats.processors import counted_by, extractor_of, features_by
from sourcewise.data.formats.store import Header, Source, seconds_of

RATE = 16_000
HOP = 160  # samples a frame
MELS = 80
SHORTEST = 200  # samples that Whisper's extractor, which mirrors as many, cannot read
WINDOW = 400  # samples of Kaldi's window; those of an incomplete one are left out
FULL_SCALE = 32768  # Kaldi reads 16-bit numbers


class AudioFile:
    """One array of (frames, mel bands), or (samples, 1)."""

    _sounds: Sounds = "log-mel"

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
        self.converted: tuple[str, ...] = ()
        if found.samplerate != RATE:
            self.converted += (f"are sampled at {found.samplerate:,} Hz: resampled to {RATE:,}",)
        if found.channels > 1:
            self.converted += (f"have {found.channels} channels: averaged",)

    def keys(self) -> Sequence[str]:
        """One, without a name; a part has the key START:END, in seconds."""
        return [""]

    def heard(self, sounds: Sounds) -> AudioFile:
        """The same recording as other frames."""
        other = copy.copy(self)
        other._sounds = sounds
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
        kind = kind_of(self._sounds)
        shape = kind.shape(-(-(stop - start) * RATE // self._rate))
        return Header(shape, np.dtype(np.float32), (f"are recordings: read as {kind.what}", *self.converted))

    def read(self, key: str, rows: slice) -> np.ndarray:
        """These frames; the whole part is read for them, since its loudest frame sets the scale."""
        return kind_of(self._sounds).of(self.samples(key))[rows]

    def samples(self, key: str = "") -> np.ndarray:
        """The samples (n,) of a part: one channel, float32, 16,000 a second."""
        start, stop = self._samples(key)
        file = _readable(self._source)
        samples, _ = soundfile.read(file, start=start, stop=stop, dtype="float32", always_2d=True)
        return resampled(samples.mean(axis=1), self._rate)


def read_samples(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """The samples (n,) of a recording, as `AudioFile.samples`, and what was converted. Raises ValueError, OSError."""
    file = AudioFile(path)
    return file.samples(), file.converted


def _readable(source: Source) -> Any:
    if isinstance(source, Path):
        return str(source)
    source.seek(0)
    return source


def resampled(samples: np.ndarray, rate: int) -> np.ndarray:
    """Samples at 16,000 a second, by a polyphase filter."""
    if rate == RATE:
        return samples
    try:
        from scipy.signal import resample_poly
    except ImportError:
        message = f"has {rate:,} samples a second; to have {RATE:,} takes scipy, which is not installed: "
        raise ValueError(message + "pip install 'sourcewise[audio]'") from None
    divisor = int(np.gcd(rate, RATE))
    found: np.ndarray = resample_poly(samples, RATE // divisor, rate // divisor).astype(np.float32)
    return found


def log_mel(samples: np.ndarray, bands: int = MELS) -> np.ndarray:
    """The (frames, bands) log-mel features of samples (one channel, 16,000 a second), without padding."""
    if len(samples) <= SHORTEST:
        return np.zeros((0, bands), np.float32)
    plain = {"padding": False, "truncation": False, "return_tensors": "np"}
    found: np.ndarray = _extractor(bands)(samples, sampling_rate=RATE, **plain)["input_features"][0]
    return np.ascontiguousarray(found.T, np.float32)


def filter_banks(samples: np.ndarray) -> np.ndarray:
    """The (frames, 80) log filter banks of Kaldi, of samples between -1 and 1 (one channel, 16,000 a second)."""
    try:
        import kaldi_native_fbank as kaldi
    except ImportError:
        message = "as fbank takes kaldi-native-fbank, which is not installed: pip install 'sourcewise[audio]'"
        raise ValueError(message) from None
    options = kaldi.FbankOptions()
    options.frame_opts.samp_freq, options.frame_opts.dither = RATE, 0
    options.mel_opts.num_bins = MELS
    computed = kaldi.OnlineFbank(options)
    computed.accept_waveform(RATE, (samples * FULL_SCALE).tolist())
    computed.input_finished()
    found = [computed.get_frame(i) for i in range(computed.num_frames_ready)]
    return np.stack(found).astype(np.float32) if found else np.zeros((0, MELS), np.float32)


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to read samples (n,) as frames: its name in words, the shape that n samples give, and the frames."""

    what: str
    shape: Callable[[int], tuple[int, int]]
    of: Callable[[np.ndarray], np.ndarray]


def _log_mel_of(bands: int) -> Kind:
    what = f"Whisper's log-mel features of {bands} bands"
    return Kind(what, lambda n: (n // HOP if n > SHORTEST else 0, bands), functools.partial(log_mel, bands=bands))


KINDS: dict[Sounds, Kind] = {
    "log-mel": _log_mel_of(80),
    "log-mel-128": _log_mel_of(128),
    "fbank": Kind("Kaldi's 80 filter banks", lambda n: (max(0, 1 + (n - WINDOW) // HOP), MELS), filter_banks),
    "samples": Kind("samples", lambda n: (n, 1), lambda samples: samples[:, None].astype(np.float32)),
}


@functools.cache
def kind_of(sounds: Sounds) -> Kind:
    """How recordings are read under a name of KINDS, or `own:FOLDER`. Raises ValueError for a processor that fails."""
    if not sounds.startswith(OWN):
        return KINDS[sounds]
    extractor = extractor_of(Path(sounds.removeprefix(OWN)))
    what = f"{type(extractor).__name__} of the model prepares them"
    return Kind(what, counted_by(extractor), functools.partial(features_by, extractor))


@functools.cache
def _extractor(bands: int) -> Any:
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(feature_size=bands, sampling_rate=RATE, hop_length=HOP)
