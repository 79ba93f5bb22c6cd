"""What the rules say of a run for its report: the diagnosis that `diagnose` gives of the same folder."""

from __future__ import annotations

from dataclasses import dataclass

from sourcewise.diagnosis.answer import Diagnosis
from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.noted import noted_findings
from sourcewise.diagnosis.ranking import put_together
from sourcewise.diagnosis.whole import of_run
from sourcewise.reporting.run_files import RunFiles
from sourcewise.training.run import Run


@dataclass(frozen=True, slots=True)
class Noted:
    """A finding, and the step in words at which the training first noted it (empty: not during training)."""

    finding: Finding
    where: str = ""

    @property
    def cure(self) -> list[tuple[str, bool]]:
        """Lines of the cure, each with whether it is code to paste."""
        return paragraphs(self.finding.cure)


@dataclass(frozen=True, slots=True)
class Checked:
    """The diagnosis of a run, what was looked at for it in words, and whether its training goes on."""

    diagnosis: Diagnosis
    findings: list[Noted]
    looked_at: list[str]
    training: bool


def check(run: RunFiles, *, training: bool) -> Checked:
    """`diagnose` of the run; while it is `training` what files alone tell, which takes a moment."""
    pieces = of_run(Run(run.folder), network=not training)
    diagnosis = put_together(pieces)
    noted = {code: _place(step) for code, (_, step) in noted_findings(run.lines).items()}
    findings = [Noted(finding, noted.get(finding.code, "")) for finding in diagnosis.findings]
    return Checked(diagnosis, findings, [words for piece in pieces for words in piece.looked_at], training)


def paragraphs(text: str) -> list[tuple[str, bool]]:
    """Lines of a rule's text, each with whether it is code to paste (begins with two spaces)."""
    return [(line.strip(), line.startswith("  ")) for line in text.split("\n") if line.strip()]


def _place(step: int) -> str:
    return f"in training, step {step:,}" if step else "before training"
