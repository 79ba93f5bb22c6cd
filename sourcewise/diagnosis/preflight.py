"""Before training: what the data and the untrained network already show (row E3)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from sourcewise.data.examples import Note
from sourcewise.data.readers.doubtful import damage
from sourcewise.diagnosis import ours
from sourcewise.diagnosis.answer import Diagnosis, Piece
from sourcewise.diagnosis.course import Course
from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.outputs import Outputs
from sourcewise.diagnosis.pairs import Pairs
from sourcewise.diagnosis.ranking import ranked
from sourcewise.diagnosis.rules import absent, look
from sourcewise.diagnosis.trained import Trained
from sourcewise.errors import FaultyData
from sourcewise.runtime.random import host_kept
from sourcewise.training.setup import TrainingSetup


def preflight(opened: Callable[[], TrainingSetup]) -> Diagnosis:
    """Every rule that needs no training; `opened` opens the training, and what it refuses of the data is a finding.

    Raises RequestError where the request itself is wrong: a file that is not there, an option that does not fit.
    """
    start = time.perf_counter()
    try:
        piece = look(*ours.before(opened()))
    except FaultyData as fault:
        piece = look(Pairs(None, refused=str(fault)))
    unseen = [absent(Course, "it takes a training")]
    unseen += [absent(each, "they take a trained model") for each in (Trained, Outputs)]
    return Diagnosis(ranked(piece.findings), [*piece.not_checked, *unseen], round(time.perf_counter() - start, 4))


@host_kept
def before_training(setup: TrainingSetup) -> Piece:
    """The same of a training that goes on from here, ranked: it will not know that it was looked at."""
    piece = look(*ours.before(setup))
    return replace(piece, findings=ranked(piece.findings))


def not_told(notes: Sequence[Note], findings: Sequence[Finding]) -> list[Note]:
    """The notes but those of damaged texts that findings tell of: of a file as many findings as notes, of one kind."""

    def told(note: Note) -> bool:
        kind = damage(note.what)
        alike = sum(each.file == note.file and damage(each.what) == kind for each in notes)
        found = sum(f.evidence.startswith(f"{note.file}: ") and f.evidence.endswith(kind) for f in findings)
        return bool(kind) and found >= alike

    return [note for note in notes if not told(note)]
