"""What a diagnosis says: a finding, with its evidence in numbers of this model and data, and its cure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sourcewise.diagnosis.cure import Cure
from sourcewise.runtime.notebook import table

Level = Literal["error", "warning", "note"]

LEVELS: tuple[Level, ...] = ("error", "warning", "note")  # gravest first


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    An error makes the model useless as it is; a warning costs quality; a note is worth knowing.
    """

    code: str
    name: str
    level: Level
    evidence: str
    cure: str  # as our own recipes take it
    cures: tuple[Cure, ...] = field(default=(), compare=False, repr=False)  # the same as data; () of one read back

    def _repr_html_(self) -> str:
        """As a table of one row, for notebooks."""
        return table(
            f"{self.code}: {self.name}", ("level", "evidence", "cure"), [[self.level, self.evidence, self.cure]]
        )

    def to_dict(self) -> dict[str, str]:
        """The keys of `diagnose --json`: code, name, level, evidence, cure."""
        return {key: getattr(self, key) for key in ("code", "name", "level", "evidence", "cure")}
