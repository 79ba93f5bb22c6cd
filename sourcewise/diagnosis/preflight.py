"""Before training: what the data and the untrained network already show (row E3)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from sourcewise.data.encoding import ExampleSet
from sourcewise.data.readers.bad_rows import LEFT_OUT
from sourcewise.diagnosis.answer import Diagnosis, Piece
from sourcewise.diagnosis.measures.pairing import not_told
from sourcewise.diagnosis.pairs import Pairs
from sourcewise.diagnosis.ranking import ranked
from sourcewise.diagnosis.rules import look
from sourcewise.diagnosis.wiring import Settings, Wiring
from sourcewise.errors import FaultyData
from sourcewise.runtime.random import host_kept
from sourcewise.training.setup import TrainingSetup

_ONLY_TRAINED = (
    "the course of training: learning rate, over-fitting",
    "source use and outputs (SRC001, OUT001 to OUT009): they take a trained model",
)


def preflight(opened: Callable[[], TrainingSetup]) -> Diagnosis:
    """Every rule that needs no training; `opened` opens the training, and what it refuses of the data is a finding.

    Raises RequestError where the request itself is wrong: a file that is not there, an option that does not fit.
    """
    start = time.perf_counter()
    try:
        piece = of_training(opened())
    except FaultyData as fault:
        piece = Piece(look(fault).findings, ["everything else: the data cannot be opened"])
    seconds = round(time.perf_counter() - start, 4)
    return Diagnosis(ranked(piece.findings), [*piece.not_checked, *_ONLY_TRAINED], seconds)


@host_kept
def before_training(prepared: TrainingSetup) -> Piece:
    """The same of a training that goes on from here, ranked: it will not know that it was looked at."""
    piece = of_training(prepared)
    return Piece(ranked(piece.findings), piece.not_checked)


def of_training(prepared: TrainingSetup) -> Piece:
    """What the data and the wiring of a training show before its first step. Raises RequestError."""
    data, settings = look(Pairs.of(prepared)), look(Settings.of(prepared))
    wiring, signals = look(Wiring.of(prepared)), look(prepared)
    found = [finding for piece in (data, settings, wiring, signals) for finding in piece.findings]
    missing = [*_not_paired(prepared.train), *data.not_checked, *_left_out(prepared.train)]
    return Piece(found, [*missing, *signals.not_checked, *wiring.not_checked])


def _not_paired(train: ExampleSet) -> list[str]:
    """The sets whose pairing cannot be judged, in words."""
    missing = []
    for part in train.parts:
        if part.drawn:
            missing.append(f"pairs of {part.dataset.name}: they are made of plain text anew in each epoch")
        missing += not_told(part)
    return missing


def _left_out(train: ExampleSet) -> list[str]:
    """The rows that are not trained on, in words."""
    left_out = Counter((note.file, note.what) for note in train.notes if note.what.startswith(LEFT_OUT))
    return [f"rows of {file} that are {what}: {count:,}" for (file, what), count in left_out.items()]
