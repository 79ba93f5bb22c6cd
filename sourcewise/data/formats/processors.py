"""Recordings as the processor in a model's folder prepares them: its class computes, by the settings of its files."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RATE = 16_000  # samples a second of what is read
FILES = ("preprocessor_config.json", "processor_config.json")  # of a processor; one file, or its sections in another
SECTIONS = ("feature_extractor", "audio_processor", "image_processor")
SAMPLES = "input_values"


def is_prepared(folder: Path) -> bool:
    """Whether a folder has the settings of a processor of sounds or images."""
    if (folder / FILES[0]).is_file():
        return True
    try:
        text = (folder / FILES[1]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return any(f'"{section}"' in text for section in SECTIONS)


@functools.cache
def extractor_of(folder: Path) -> Any:
    """The processor of sounds in a folder. Raises ValueError, in a line that follows the name of a recording."""
    if not is_prepared(folder):
        missing = f"its {FILES[0]}, by which recordings become what it reads, is not there"
        raise ValueError(
            f"is a recording for the model in {folder}: {missing}; copy it, or give features as .npy files"
        )
    import transformers

    try:
        found: Any = transformers.AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # of any class, such as a package that is missing
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(f"takes the processor in {folder}, which transformers cannot make ({reason[:160]})") from None
    if int(getattr(found, "sampling_rate", RATE)) != RATE:
        takes = f"takes {found.sampling_rate:,} samples a second, not {RATE:,}"
        raise ValueError(f"is for the processor in {folder}, which {takes}; give its features as .npy files")
    return found


def features_by(extractor: Any, samples: np.ndarray) -> np.ndarray:
    """Samples (n,) → (frames, width), or (n, 1) for a model of samples, without the padding of the processor."""
    turned = type(extractor).__name__ == "WhisperFeatureExtractor"  # (width, frames), and 30 seconds unless told
    whole = {"padding": False, "truncation": False} if turned else {}
    given = extractor(samples, sampling_rate=RATE, return_tensors="np", return_attention_mask=True, **whole)
    name = next(key for key in given if key.startswith("input_"))
    found = np.asarray(given[name][0], np.float32)
    found = found.T if turned else found
    found = found[:, None] if name == SAMPLES else found
    mask = given.get("attention_mask")
    real = len(found) if mask is None or len(mask[0]) != len(found) else int(np.asarray(mask[0]).sum())
    return np.ascontiguousarray(found[:real])


def counted_by(extractor: Any) -> Callable[[int], tuple[int, int]]:
    """A function: number of samples → shape of the features, without computing them.

    Frames begin every so many samples; where the first ones begin is found by trying. Raises ValueError for a
    processor whose frames are not of this kind.
    """
    width = features_by(extractor, _noise(RATE)).shape[1]
    if width == 1:
        return lambda n: (n, 1)
    hop = int(getattr(extractor, "hop_length", 160)) * int(getattr(extractor, "stride", 1) or 1)

    def frames(n: int) -> int:
        return len(features_by(extractor, _noise(n)))

    least = frames(RATE)
    low, high = RATE, RATE + hop  # the first number of samples with one frame more is in (low, high]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if frames(middle) > least else (middle, high)
    offset = (least + 1) * hop - high

    def shape(n: int) -> tuple[int, int]:
        return max(0, (n + offset) // hop), width

    wrong = [n for n in (RATE // 2 + 77, 2 * RATE + 5, 2 * RATE + hop // 2) if frames(n) != shape(n)[0]]
    if wrong:
        problem = (
            f"has {frames(wrong[0])} frames of {wrong[0]:,} samples, where one each {hop} gives {shape(wrong[0])[0]}"
        )
        raise ValueError(f"is for {type(extractor).__name__}, which {problem}; give its features as .npy files")
    return shape


@functools.cache
def _noise(n: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(n)).astype(np.float32)
