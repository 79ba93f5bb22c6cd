"""The files that features are made of, each with an id: its place below the folder that was given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from sourcewise.data.formats.audio import RATE, read_samples
from sourcewise.data.formats.registry import FORMATS
from sourcewise.errors import RequestError

SOUNDS = next(each.endings for each in FORMATS if each.extra == "audio")
VIDEOS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg")
KINDS = {"sound": SOUNDS, "video": VIDEOS}


@dataclass(frozen=True, slots=True)
class Input:
    """One file, and the name of its features below the output folder, without an ending."""

    path: Path
    id: str


def find_inputs(given: Sequence[str | Path]) -> tuple[str, list[Input]]:
    """`sound` or `video`, and the files of that kind: those that are named, and those below named folders.

    Raises RequestError for a missing file, an unknown kind, both kinds at once, and two files of one id.
    """
    found: list[Input] = []
    for each in map(Path, given):
        path = each.expanduser()
        if path.is_dir():
            below = [p for p in sorted(path.rglob("*")) if p.is_file() and _kind(p)]
            if not below:
                raise RequestError(f"{path}: holds no recording and no video ({', '.join((*SOUNDS, *VIDEOS))})")
            found += [Input(p, p.relative_to(path).with_suffix("").as_posix()) for p in below]
        elif not path.is_file():
            raise RequestError(f"{path}: no such file or folder")
        elif not _kind(path):
            raise RequestError(f"{path}: is none of {', '.join((*SOUNDS, *VIDEOS))}")
        else:
            found.append(Input(path, path.stem))
    kinds = {_kind(each.path): each.path for each in found}
    if len(kinds) > 1:
        sound, video = kinds["sound"], kinds["video"]
        raise RequestError(f"{sound} is a recording, {video} a video; an encoder reads one kind, so name them apart")
    _check_ids(found)
    return next(iter(kinds)), found


def _check_ids(found: Sequence[Input]) -> None:
    by_id: dict[str, Path] = {}
    for each in found:
        other = by_id.setdefault(each.id, each.path)
        if other != each.path:
            raise RequestError(f"{other} and {each.path} would both be {each.id}.npy; name the folder above them")


def _kind(path: Path) -> str:
    return next((kind for kind, endings in KINDS.items() if path.suffix.lower() in endings), "")


def sound(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Samples (n,) float32, 16,000 a second, and remarks on what was converted. Raises ValueError or OSError."""
    samples, remarks = read_samples(path)
    if len(samples) < RATE // 50:
        raise ValueError(f"is {len(samples) / RATE:.3f} s long, too short for an encoder")
    return samples, remarks


def frames(path: Path, rate: float | None, stride: int) -> Iterator[np.ndarray]:
    """Images (height, width, 3) uint8 of a video: every `stride`-th, of `rate` a second if that is given.

    At a rate, each image is the last one that was shown by then. Raises ValueError in words, or OSError.
    """
    av = _av()
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError("has no pictures")
            for i, image in enumerate(_at_rate(container.decode(video=0), rate)):
                if i % stride == 0:
                    yield image.to_ndarray(format="rgb24")
    except (av.error.FFmpegError, EOFError) as error:
        raise ValueError(f"is no readable video ({getattr(error, 'strerror', error)})") from None


def _at_rate(images: Iterator[Any], rate: float | None) -> Iterator[Any]:
    """Images at the times 0, 1/rate, 2/rate, … after the first one; all of them without a rate."""
    if rate is None:
        yield from images
        return
    step, shown, count, start = 1 / Fraction(rate).limit_denominator(1000), None, 0, Fraction(0)
    for image in images:
        if image.pts is None:
            raise ValueError("has pictures without a time; leave --rate out")
        time = image.pts * image.time_base
        if shown is None:
            start = time
        while shown is not None and start + count * step < time:
            yield shown
            count += 1
        shown = image
    if shown is not None and start + count * step <= shown.pts * shown.time_base:
        yield shown


def _av() -> Any:
    try:
        import av
        import av.error
    except ImportError:
        raise RequestError("videos take av (PyAV), which is not installed: pip install 'sourcewise[video]'") from None
    return av
