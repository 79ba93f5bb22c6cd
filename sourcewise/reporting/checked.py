"""What the rules have looked at of a run, as far as its folder tells, and what they found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sourcewise.diagnosis.diagnose import Diagnosis, Piece, of_evaluation, put_together
from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.rules import RULES
from sourcewise.evaluation.results import Evaluation
from sourcewise.reporting.curves import TRAIN, is_finite
from sourcewise.reporting.run_files import RunFiles, noted_findings


def _span(letters: str) -> str:
    """The rules of a group, such as "DAT001 to DAT017"."""
    codes = sorted(code for code in RULES if code.startswith(letters))
    return f"{codes[0]} to {codes[-1]}"


NO_PREFLIGHT = (
    f"the training data ({_span('DAT')}): no pre-flight is noted here",
    f"the wiring ({_span('WIR')}): no pre-flight is noted here",
)
NO_OUTPUTS = f"source use and outputs (SRC001, {_span('OUT')}): none are here"
NO_NETWORK = "the trained network (MEM001, MEM002, ATT001, ATT002, SRC002, SRC003): a report is made of files alone"


@dataclass(frozen=True, slots=True)
class Noted:
    """A finding, and where it was made, in words: empty for the evaluation that the page shows."""

    finding: Finding
    where: str = ""

    @property
    def cure(self) -> list[tuple[str, bool]]:
        """The lines of its cure, and which of them are to paste."""
        return paragraphs(self.finding.cure)


@dataclass(frozen=True, slots=True)
class Checked:
    """Findings of every look, ranked, the cause first; what was looked at and what was not, in words."""

    findings: list[Noted]
    looked_at: list[str]
    not_checked: list[str]
    outputs: Diagnosis | None  # of the evaluation alone; None: it left no outputs


def check(run: RunFiles) -> Checked:
    """What the training's doctor noted, and what the evaluation shows; a finding of both is told as of the latter."""
    looked_at, not_checked = _in_training(run.lines)
    noted = {code: Noted(found, _place(step)) for code, (found, step) in noted_findings(run.lines).items()}
    outputs = None
    if run.metrics and run.rows:
        outputs = put_together([of_evaluation(Evaluation(run.metrics, run.rows))])
        noted |= {found.code: Noted(found) for found in outputs.findings}
        looked_at.append(f"the evaluation, of {len(run.rows):,} examples")
        not_checked += outputs.not_checked
    else:
        not_checked.append(NO_OUTPUTS)
    together = put_together([Piece([each.finding for each in noted.values()])])
    findings = [Noted(found, noted[found.code].where) for found in together.findings]
    return Checked(findings, looked_at, [*not_checked, NO_NETWORK], outputs)


def _in_training(lines: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """What was looked at before the training and on its way, and what was not."""
    watch = next((line for line in lines if line.get("kind") == "watch"), {})
    looked_at, not_checked = [], list(NO_PREFLIGHT)
    if watch.get("preflight"):
        looked_at.append("the data and the wiring, before the first step")
        not_checked = [str(words) for words in watch.get("not_checked") or ()]
    last = max((line["step"] for line in lines if line.get("kind") == TRAIN and is_finite(line.get("step"))), default=0)
    if watch and last:
        looked_at.append(f"the course of training, up to step {last:,}")
    else:
        why = "no step is logged yet" if watch else "nobody is noted to have watched it"
        not_checked.append(f"the course of training ({_span('TRN')}): {why}")
    return looked_at, not_checked


def paragraphs(text: str) -> list[tuple[str, bool]]:
    """A rule's text as (line, is it to paste): such lines begin with two spaces."""
    return [(line.strip(), line.startswith("  ")) for line in text.split("\n") if line.strip()]


def _place(step: int) -> str:
    return f"in training, step {step:,}" if step else "before training"
