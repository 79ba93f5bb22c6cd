"""Where the features of a row are, as one cell or option says it: a file, and perhaps a part of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sourcewise.config.data import named_streams
from sourcewise.data.formats.registry import ending_of
from sourcewise.errors import RequestError

Features = str | Path | Mapping[str, str | Path]  # a folder, file or pattern; or several by name

_PATTERN = re.compile(r"\{id(?::\.(\d+))?\}")


@dataclass(frozen=True, slots=True)
class Place:
    """A file as named, and the part that is meant: a span of bytes, or a key, and frames of it."""

    file: str
    span: tuple[int, int] | None = None
    key: str | None = None
    start: int = 0
    stop: int | None = None


def parse_place(name: str) -> Place:
    """A cell such as `x.npy`, `x.zip:OFFSET:BYTES`, `x.ark:OFFSET`, `x.ark:OFFSET[FIRST:LAST]`, `x.h5[KEY]`."""
    if found := re.fullmatch(r"(.*\.zip):(\d+):(\d+)", name):
        return Place(found[1], span=(int(found[2]), int(found[3])))
    if found := re.fullmatch(r"(.*\.ark):(\d+)(?:\[(\d+):(\d+)\])?", name):  # Kaldi's last frame is included
        frames = (int(found[3]), int(found[4]) + 1) if found[3] else (0, None)
        return Place(found[1], None, found[2], *frames)
    if (found := re.fullmatch(r"(.+)\[([^\[\]]+)\]\s*", name)) and ending_of(found[1]):
        return Place(found[1], key=found[2])
    return Place(name)


def is_pattern(features: str | Path) -> bool:
    """Whether `features` says with {id} where the file of each id is."""
    return _PATTERN.search(str(features)) is not None


def filled(pattern: str | Path, name: str) -> str:
    """The cell that a pattern gives for an id: {id} is all of it, {id:.5} its first five letters."""
    return _PATTERN.sub(lambda found: name[: int(found[1])] if found[1] else name, str(pattern))


def streams_of(features: Features | None) -> dict[str, str | Path | None]:
    """Name → folder, file or pattern of each stream, in order of name; one without a name has the name "".

    A text may name several as well: `pose=DIR,rgb=DIR`. Raises RequestError if two have one name.
    """
    if isinstance(features, str):
        try:
            features = named_streams(features)
        except ValueError as error:
            raise RequestError(error) from None
    if not isinstance(features, Mapping):
        return {"": features}
    return {name: features[name] for name in sorted(features)}
