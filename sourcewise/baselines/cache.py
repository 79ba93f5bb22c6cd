"""Keeps baselines in a run folder, under a digest of all that they were taken from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from sourcewise.baselines.measure import NAMES, Baselines, take
from sourcewise.data.examples import Dataset
from sourcewise.errors import RequestError
from sourcewise.metrics.counting import Counting
from sourcewise.metrics.measure import Measure
from sourcewise.runtime.files import write_atomically

FOLDER = "baselines"  # in a run folder
VERSION = 1  # of how baselines are taken: another one makes the files of older versions useless
KEPT = 16  # files, the newest


def take_or_read(
    dataset: Dataset, training: Sequence[Dataset], measure: Measure, why_not: str = "", run: Path | None = None
) -> Baselines | None:
    """`take`, from a file in the run folder if it was taken from the same sets before.

    The file's name is a digest of every source and target and every matrix of both sides, so none is ever stale.
    """
    if run is None or not run.is_dir():
        return take(dataset, training, measure, why_not)
    path = run / FOLDER / f"{_key(dataset, training, measure, why_not)}.json"
    found = _read(path, dataset)
    if found is None and (found := take(dataset, training, measure, why_not)) is not None:
        _write(path, found)
    return found


def _key(dataset: Dataset, training: Sequence[Dataset], measure: Measure, why_not: str) -> str:
    digest = hashlib.blake2b(f"{VERSION}\0{measure}\0{why_not}\0{len(training)}".encode(), digest_size=16)
    for each in (dataset, *training):
        digest.update(f"\0{each.name}\0{len(each)}\0{each.dims}".encode())
        if each.kept:  # its key is made of the file
            digest.update(each.kept.key.encode())
            continue
        for example in each:
            for text in (example.source, *example.references):
                digest.update(f"{len(text)}\0{text}".encode("utf-8", "surrogatepass"))
        for i in range(len(each) if each.dims else 0):
            matrix = np.ascontiguousarray(each.features(i))
            digest.update(f"{matrix.shape}".encode())
            digest.update(matrix.data)
    return digest.hexdigest()


def _read(path: Path, dataset: Dataset) -> Baselines | None:
    """What a file holds; None if there is none, or a damaged one, which is then taken anew."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        references = [tuple(each) for each in tree.pop("references")]
        found = Baselines(references, counting=Counting(**tree.pop("counting")), **tree)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    whole = found.references == [example.references for example in dataset]
    return found if whole and all(len(found.texts.get(name, ())) == len(dataset) for name in NAMES) else None


def _write(path: Path, found: Baselines) -> None:
    """Write a file, if the folder can be written, and delete the oldest of many."""
    try:
        write_atomically(path, json.dumps(asdict(found), ensure_ascii=False) + "\n")
        files = sorted(path.parent.glob("*.json"), key=lambda each: each.stat().st_mtime_ns)
        for old in files[:-KEPT]:
            old.unlink()
    except (OSError, RequestError):
        return  # a folder that is read only: they are taken anew each time
