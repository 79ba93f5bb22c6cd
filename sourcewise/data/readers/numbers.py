"""Whether the numbers of a matrix can be used, and what is wrong with those that cannot, in words."""

from __future__ import annotations

import numpy as np

NUMBERS = "fiub"  # kinds of dtypes: floats, whole numbers with and without a sign, truth values


def as_float32(values: np.ndarray) -> np.ndarray:
    """The same numbers in float32; larger ones than it holds become infinite, without a warning."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def not_numbers(dtype: np.dtype) -> str:
    """What is wrong with arrays of this type; empty if they hold numbers."""
    if dtype.hasobject:
        return "holds objects, not numbers; save it as float16 or float32"
    return "" if dtype.kind in NUMBERS else f"holds {dtype}, not numbers; save it as float16 or float32"


def not_finite(values: np.ndarray, first: int = 0) -> str:
    """What is wrong with the numbers of a (frames, dims) matrix whose first frame is `first`; empty if nothing is."""
    if values.dtype.kind != "f":
        return ""
    finite = np.isfinite(as_float32(values))
    if finite.all():
        return ""
    place = np.unravel_index(int(np.argmin(finite)), finite.shape)
    where, value = f"first in frame {first + int(place[0])}", values[place]
    if not np.isfinite(value):
        return f"has NaN or infinity, {where}; extract its features again"
    much = f"{value:.4g} in dimension {int(place[1])}"
    return f"has {values.dtype} numbers that float32 cannot hold, {where}: {much}; scale them, or mend what made them"
