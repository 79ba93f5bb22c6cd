"""An instance of a kind of fault, or a healthy training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sourcewise.diagnosis.answer import Diagnosis

STEPS = 14
EVERYWHERE = "gru transformer accelerate"
Build = Callable[[Path], Diagnosis]


@dataclass(frozen=True)
class Instance:
    """One training: what it has, where, the codes that name that (none: healthy), and how it is run."""

    kind: str
    host: str
    name: str
    codes: str
    run: Build
