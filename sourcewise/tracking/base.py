"""What every tracker is given, and what it is to be able to do."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

KINDS = ("tensorboard", "wandb", "mlflow", "trackio")
PROJECT = "sourcewise"


@dataclass(frozen=True, slots=True)
class Place:
    """The run that is tracked: its folder, its options, and the step that it goes on from, 0 for a new one."""

    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    step: int = 0

    @property
    def id(self) -> str:
        """The same for a run that goes on in its folder."""
        return hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:16]


class Tracker(Protocol):
    """What takes figures and findings; each call may raise what it likes."""

    name: str

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Figures of a step."""

    def alert(self, title: str, text: str, level: str, step: int) -> None:
        """A finding, of level error, warning or note."""

    def close(self) -> None:
        """Nothing follows."""


def only_here(name: str, value: str) -> None:
    """Set a variable of the environment, unless whoever trains has."""
    os.environ.setdefault(name, value)
