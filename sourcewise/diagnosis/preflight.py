"""Before training: what the data and the untrained network already show (row E3)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import torch

from sourcewise.data.bad_rows import LEFT_OUT
from sourcewise.data.plain_text import Denoised
from sourcewise.diagnosis.answer import Diagnosis, Piece
from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.ranking import ranked
from sourcewise.diagnosis.rules import data, data_features, pairing, settings, signals, wiring
from sourcewise.diagnosis.rules.data_texts import REFUSED
from sourcewise.errors import FaultyData
from sourcewise.training.opening import Prepared
from sourcewise.training.state import random_states, restore_random_states

_ONLY_TRAINED = (
    "the course of training: learning rate, over-fitting",
    "source use and outputs (SRC001, OUT001 to OUT009): they take a trained model",
)


# Causes before symptoms: the data, then the wiring.
PREFLIGHT_CHECKS: tuple[Callable[[Prepared], list[Finding]], ...] = (
    data.check,
    data_features.check,
    pairing.check,
    settings.check,
    wiring.wiring_findings,
    signals.check,
)


def preflight(opened: Callable[[], Prepared]) -> Diagnosis:
    """Every rule that needs no training; `opened` opens the training, and what it refuses of the data is a finding.

    Raises RequestError where the request itself is wrong: a file that is not there, an option that does not fit.
    """
    start = time.perf_counter()
    try:
        prepared = opened()
        found = [finding for check in PREFLIGHT_CHECKS for finding in check(prepared)]
        missing = [*left_unchecked(prepared), *wiring.not_compared(found)]
    except FaultyData as fault:
        found, missing = [REFUSED.finding(str(fault))], ["everything else: the data cannot be opened"]
    return Diagnosis(ranked(found), [*missing, *_ONLY_TRAINED], round(time.perf_counter() - start, 4))


def before_training(prepared: Prepared) -> Piece:
    """The same of a training that goes on from here, ranked: it will not know that it was looked at."""
    threads, states = torch.get_num_threads(), random_states()
    try:
        found = [finding for check in PREFLIGHT_CHECKS for finding in check(prepared)]
        return Piece(ranked(found), [*left_unchecked(prepared), *wiring.not_compared(found)])
    finally:
        restore_random_states(states)
        torch.set_num_threads(threads)


def left_unchecked(prepared: Prepared) -> list[str]:
    """What these rules cannot say of this training, in words."""
    missing = []
    for part in prepared.train.parts:
        if isinstance(part, Denoised):
            missing.append(f"pairs of {part.name}: they are made of plain text anew in each epoch")
        missing += pairing.not_told(part)
    if prepared.valid is None:
        missing.append("validation examples in the training set (DAT008): there is no validation set")
    if prepared.train.dataset.dims:
        missing.append("duplicates and several targets for one source (DAT009, DAT010): sources are features")
    left_out = Counter((note.file, note.what) for note in prepared.train.notes if note.what.startswith(LEFT_OUT))
    missing += [f"rows of {file} that are {what}: {count:,}" for (file, what), count in left_out.items()]
    if too_large := signals.not_tried(prepared):
        missing.append(too_large)
    return missing
