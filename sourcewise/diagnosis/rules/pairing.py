"""DAT003: do the sources and targets of a set belong together? Texts and features, training and validation set."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from sourcewise.data.encoding import Encoded
from sourcewise.data.plain_text import Denoised
from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.rules.alignment import Pairing, Sides, pairing
from sourcewise.diagnosis.rules.data import named
from sourcewise.diagnosis.rules.data_texts import MISALIGNED
from sourcewise.diagnosis.rules.sides import Features, Side, Texts, in_thirds

if TYPE_CHECKING:
    from sourcewise.training.opening import Prepared

_JUDGED: WeakKeyDictionary[Encoded, Pairing] = WeakKeyDictionary()  # it takes a second, and is asked twice


def check(prepared: Prepared) -> list[Finding]:
    """DAT003 of the training sets; of the validation sets, where those are in step: then what judges is by chance."""
    found = [finding for part in prepared.train.parts for finding in misaligned(part)]
    if found or prepared.valid is None:
        return found
    return [replace(finding, level="warning") for part in prepared.valid.parts for finding in misaligned(part)]


def misaligned(part: Encoded) -> list[Finding]:
    """DAT003 of one set; a warning where it is short numbers that may have been worked out."""
    known = judged(part)
    if known.state not in ("out of step", "perhaps"):
        return []
    return [MISALIGNED.finding(named(part, known.words), "error" if known.state == "out of step" else "warning")]


def not_told(part: Encoded) -> list[str]:
    """Why it cannot be told, in words; empty where it can."""
    known = judged(part)
    if known.state != "not told" or isinstance(part, Denoised):
        return []
    of = f" of {part.dataset.name}" if part.dataset.name else ""
    return [f"whether sources and targets{of} belong together (DAT003): {known.words}"]


def judged(part: Encoded) -> Pairing:
    """What is known of a set's pairing, looked at once."""
    if isinstance(part, Denoised):
        return Pairing("in step")  # its pairs are made of one text
    if part not in _JUDGED:
        _JUDGED[part] = pairing(part.dataset, _sides(part))
    return _JUDGED[part]


def _sides(part: Encoded) -> Sides:
    """The rows of a set at some positions: whole texts and whole matrices, whatever of them a model is to see."""
    data = part.dataset
    summed = cache(lambda place: in_thirds(data.features(place)))  # quarters are asked for again, one row further

    def rows(left: np.ndarray, right: np.ndarray) -> tuple[Side, Texts]:
        target = Texts([data[int(i)].target for i in right], [part.targets[int(i)] for i in right])
        if data.dims:
            frames = [data[int(i)].frames for i in left]
            return Features(np.stack([summed(int(i)) for i in left]), frames), target
        assert part.sources is not None
        return Texts([data[int(i)].source for i in left], [part.sources[int(i)] for i in left]), target

    return rows
