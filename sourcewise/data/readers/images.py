"""Images as frames: arrays (time, channel, height, width) or (time, height, width, channel) as (frames × dims)."""

from __future__ import annotations

import numpy as np

CHANNELS = (1, 3, 4)  # grey, colours, colours and opacity

Image = tuple[int, int, int]  # height, width, channels


def image_of(shape: tuple[int, ...]) -> Image | None:
    """The images of an array of this shape; None if it holds none."""
    if len(shape) != 4 or 0 in shape:
        return None
    if shape[3] in CHANNELS:
        return shape[1], shape[2], shape[3]
    return (shape[2], shape[3], shape[1]) if shape[1] in CHANNELS else None


def as_frames(values: np.ndarray) -> np.ndarray:
    """Images (time, …) → (time, height · width · channels), the channels last."""
    if values.shape[3] not in CHANNELS:
        values = np.moveaxis(values, 1, 3)
    return np.ascontiguousarray(values).reshape(len(values), -1)


def in_words(image: Image) -> str:
    """What a set of such arrays is told with, after "N clips"."""
    height, width, channels = image
    size = f"{height} × {width} of {channels} channel{'s' if channels > 1 else ''}"
    return f"are images, {size}: one a frame, flattened with the channels last"
