"""What a diagnosis is made of, and what it answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sourcewise.diagnosis.finding import Finding
from sourcewise.runtime.notebook import table


@dataclass(frozen=True, slots=True)
class Piece:
    """What one look found, and in words what it could not look at, and what it did.

    `going_on` and `early` are of the course of a training: why it may still get better, and why what it has learned so
    far cannot be judged yet, in words; "" where neither is so.
    """

    findings: Sequence[Finding] = ()
    not_checked: Sequence[str] = ()
    looked_at: Sequence[str] = ()
    going_on: str = ""
    early: str = ""


POOR_VERDICT = "OUT009"  # a note where `evaluate` says failed and the training was too short to be judged


@dataclass(frozen=True, slots=True, repr=False)
class Diagnosis:
    """The answer of `sourcewise diagnose`: ill if any finding is an error; what is listed first is then the cause."""

    findings: list[Finding]
    not_checked: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def cause(self) -> str | None:
        """The code of the first finding that is no note, if any is an error: it, or what explains it; else None."""
        ill = any(finding.level == "error" for finding in self.findings)
        return next(finding.code for finding in self.findings if finding.level != "note") if ill else None

    @property
    def verdict(self) -> Literal["healthy", "undecided", "ill"]:
        """`ill` if there is an error; `undecided` if `evaluate` says failed and it is too early to say why.

        Warnings and other notes alone are `healthy`.
        """
        if self.cause is not None:
            return "ill"
        return "undecided" if any(f.code == POOR_VERDICT and f.level == "note" for f in self.findings) else "healthy"

    def to_dict(self) -> dict[str, Any]:
        """The keys of `diagnose --json`: verdict, cause, findings, not_checked, seconds."""
        return {
            "verdict": self.verdict,
            "cause": self.cause,
            "findings": [finding.to_dict() for finding in self.findings],
            "not_checked": list(self.not_checked),
            "seconds": self.seconds,
        }

    def __repr__(self) -> str:
        """The verdict and the codes, on one line."""
        codes = ", ".join(f"{finding.code} {finding.level}" for finding in self.findings)
        unseen = f"; {len(self.not_checked)} not checked" if self.not_checked else ""
        return f"<Diagnosis: {self.verdict}{': ' + codes if codes else ''}{unseen}>"

    def _repr_html_(self) -> str:
        """Its findings as a table, for notebooks."""
        rows = [[f.code, f.level, f.name, f.evidence, f.cure] for f in self.findings]
        foot = "not checked: " + "; ".join(self.not_checked) if self.not_checked else ""
        title = f"{self.verdict}{f', the cause is {self.cause}' if self.cause else ''}"
        return table(title, ("rule", "level", "what", "evidence", "cure"), rows, foot)

    def to_json(self) -> str:
        """`to_dict` as indented JSON."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
