"""Makes the features of files, one .npy each; a broken-off extraction goes on where it was.

```
FOLDER/features.json      how they are made: model, digest of its weights, processor, layer, stride, rate
FOLDER/files.tsv          id, n_frames, file, bytes: what is done
FOLDER/ID.npy             (frames, dims) float32
```
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sourcewise.data.readers.feature_record import RECORD_FILE, differences, read_record
from sourcewise.errors import RequestError
from sourcewise.extraction.encoder import Encoder
from sourcewise.extraction.inputs import Input, find_inputs, frames, sound
from sourcewise.runtime.files import write_atomically

FILES = "files.tsv"
HEADER = "id\tn_frames\tfile\tbytes\n"
Progress = Callable[[int, int], None]  # files done, of all


@dataclass(slots=True)
class Extracted:
    """What was made: numbers of files, and remarks with their counts."""

    folder: Path
    record: dict[str, Any]
    made: int = 0
    kept: int = 0  # from before
    bad: list[str] = field(default_factory=list)  # files that cannot be read, in words
    remarks: Counter[str] = field(default_factory=Counter)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        counts = {"made": self.made, "kept": self.kept, "bad": self.bad, "remarks": dict(self.remarks)}
        return {"folder": str(self.folder), **counts, "record": self.record}


def extract(
    files: Sequence[str | Path],
    model: str | Path,
    folder: str | Path,
    *,
    layer: int | None = None,
    stride: int = 1,
    rate: float | None = None,
    progress: Progress | None = None,
) -> Extracted:
    """Write the features of recordings or videos, by a pretrained encoder, into a folder with a record of how.

    `layer` is one of the encoder's (default: its output), every `stride`-th frame of a video is read (or vector of a
    recording kept), of `rate` pictures a second. Files that are done are kept; those that cannot be read are collected
    in `bad`. Raises RequestError if the folder holds features that were made otherwise, and KeyboardInterrupt with the
    count of what is done.
    """
    kind, inputs = find_inputs(files)
    if kind == "sound" and rate is not None:
        raise RequestError("--rate is of videos; recordings are read at 16,000 samples a second")
    if stride < 1 or (rate is not None and not 0 < rate < float("inf")):
        raise RequestError(f"--stride {stride}, --rate {rate}: both should be above 0")
    place = Path(folder).expanduser()
    encoder = Encoder(str(model), kind, layer)
    found = Extracted(place, {**encoder.record(), "stride": stride, "rate": rate})
    _settle_record(place, found.record)
    done = _read_done(place)
    try:
        for i, each in enumerate(inputs):
            _one(encoder, each, found, done)
            if progress is not None:
                progress(i + 1, len(inputs))
    except KeyboardInterrupt:
        count = found.made + found.kept
        raise KeyboardInterrupt(f"{count:,} of {len(inputs):,} are done; the same command goes on") from None
    return found


def _settle_record(folder: Path, record: dict[str, Any]) -> None:
    """Write the record of a new folder. Raises RequestError if that of an old one is another."""
    old = read_record(folder)
    if old is None:
        write_atomically(folder / RECORD_FILE, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    elif other := list(differences({"": old}, {"": record})):
        raise RequestError(f"{folder}: holds features with {'; '.join(other)}; name another folder")


def _read_done(folder: Path) -> dict[str, int]:
    """Id → size in bytes of the file that its features were made of."""
    path = folder / FILES
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    whole = [line for line in lines[1:] if line.endswith("\n") and line.count("\t") == HEADER.count("\t")]
    if len(whole) + 1 != len(lines):  # none yet, or the last line of a killed extraction is half
        write_atomically(path, HEADER + "".join(whole))
    rows = [line.rstrip("\n").split("\t") for line in whole]
    return {row[0]: int(row[3]) for row in rows if row[3].isdecimal()}


def _one(encoder: Encoder, each: Input, found: Extracted, done: dict[str, int]) -> None:
    """Make the features of a file, unless they are there."""
    target = found.folder / f"{each.id}.npy"
    try:
        size = each.path.stat().st_size
        if done.get(each.id) == size and target.is_file():
            found.kept += 1
            return
        values = _values(encoder, each, found)
    except (ValueError, OSError) as error:
        if isinstance(error, RequestError):
            raise
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        found.bad.append(f"{each.path}: {said}")
        return
    content = io.BytesIO()
    np.save(content, values)
    write_atomically(target, content.getvalue())
    with open(found.folder / FILES, "a", encoding="utf-8") as file:
        file.write("\t".join((each.id, str(len(values)), str(each.path), str(size))) + "\n")
    found.made += 1


def _values(encoder: Encoder, each: Input, found: Extracted) -> np.ndarray:
    stride = int(found.record["stride"])
    if encoder.kind == "video":
        return encoder.of_images(frames(each.path, found.record["rate"], stride))
    samples, remarks = sound(each.path)
    found.remarks.update(remarks)
    values, windows = encoder.of_sound(samples)
    if windows > 1:
        found.remarks.update(["are longer than the encoder reads at once: read in windows of 30 s"])
    return np.ascontiguousarray(values[::stride])
