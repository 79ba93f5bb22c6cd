"""From findings to a diagnosis: ranked, the cause first, and honest about what was not looked at."""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sourcewise.diagnosis.early import judged_fairly
from sourcewise.diagnosis.finding import LEVELS, Finding
from sourcewise.diagnosis.rules import EVALUATION_CHECKS, RULES
from sourcewise.diagnosis.rules.judged import POOR_VERDICT
from sourcewise.diagnosis.rules.outputs import MIN_EXAMPLES
from sourcewise.diagnosis.rules.training_texts import STILL_LEARNING, TOO_SHORT
from sourcewise.errors import RequestError
from sourcewise.evaluation.results import Evaluation
from sourcewise.evaluation.verdict import source_use

if TYPE_CHECKING:
    from sourcewise.config import DatasetConfig
    from sourcewise.data.examples import Dataset
    from sourcewise.evaluation.evaluate import Progress
    from sourcewise.generation.model import Model

_NEEDS_MORE = (
    "the training data: imbalance, duplicates, misaligned pairs",
    "the wiring: masks, labels, frozen parts, gradients",
    "the course of training: learning rate, over-fitting",
)


@dataclass(frozen=True, slots=True)
class Piece:
    """What one look found, and in words what it could not look at, and what it did.

    `going_on`: it saw a training whose loss still falls, or that is not over.
    """

    findings: Sequence[Finding] = ()
    not_checked: Sequence[str] = ()
    looked_at: Sequence[str] = ()
    going_on: bool = False
    early: str = ""  # why what is found is too early to judge, where it is


@dataclass(frozen=True, slots=True)
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
    def verdict(self) -> Literal["healthy", "ill"]:
        """`ill` if there is an error; warnings and notes alone are `healthy`."""
        return "healthy" if self.cause is None else "ill"

    def to_dict(self) -> dict[str, Any]:
        """The keys of `diagnose --json`: verdict, cause, findings, not_checked, seconds."""
        return {
            "verdict": self.verdict,
            "cause": self.cause,
            "findings": [finding.to_dict() for finding in self.findings],
            "not_checked": list(self.not_checked),
            "seconds": self.seconds,
        }

    def to_json(self) -> str:
        """`to_dict` as indented JSON."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)


def diagnose(
    model: Model | str | Path,
    data: str | Path | Dataset | DatasetConfig | Sequence[DatasetConfig] | None = None,
    *,
    task: str | None = None,
    features: str | None = None,
    source: str | None = None,
    target: str | None = None,
    generation: dict[str, Any] | None = None,
    progress: Progress | None = None,
    **limits: int,
) -> Diagnosis:
    """Diagnose a model on a set: a loaded model, a run folder, a Hugging Face folder or a hub name.

    Of a run all is looked at that is still there: its recipe's data and wiring, its course, its network, its outputs.
    Without `data` it is judged by the outputs it holds, and else on its own test or validation set. All else says what
    it says to `evaluate`, whose verdict on the same set is among the findings. Raises RequestError where there is
    nothing to judge by, and NotFinite where weights are NaN or infinite.
    """
    from sourcewise.diagnosis.whole import Asked, whole

    start = time.perf_counter()
    reading = {"task": task, "features": features, "source": source, "target": target}
    pieces, own = whole(model, Asked(data, reading, generation or {}, limits, progress))
    return put_together(pieces, time.perf_counter() - start, own_set=own)


def put_together(pieces: Sequence[Piece], seconds: float = 0.0, *, own_set: bool = True) -> Diagnosis:
    """One diagnosis of several looks: a finding a code, ranked. `own_set`: the outputs are of a set of the training."""
    found = [finding for piece in pieces for finding in piece.findings]
    missing = [words for piece in pieces for words in piece.not_checked]
    early = next((piece.early for piece in pieces if piece.early), "")
    still = early or "the training is not over, or its loss still fell at its end"
    going_on = still if any(piece.going_on for piece in pieces) else ""
    once = _once(found)
    poor = [_excused(f, once, going_on if own_set else "", own_set) for f in once if f.code == POOR_VERDICT.code]
    failed = any(finding.level == "error" for finding in poor)
    judged = judged_fairly([f for f in once if f.code != POOR_VERDICT.code], early, failed=failed)
    return Diagnosis(ranked([*judged, *poor]), missing, round(seconds, 4))


def _once(findings: Sequence[Finding]) -> list[Finding]:
    """One finding a code, the gravest and then the first; a rule may speak of the recipe and of the trained network."""
    kept: dict[str, Finding] = {}
    for finding in sorted(findings, key=lambda f: LEVELS.index(f.level)):
        kept.setdefault(finding.code, finding)
    return list(kept.values())


def _excused(poor: Finding, found: Sequence[Finding], going_on: str, own_set: bool) -> Finding:
    """A poor verdict is a note where the training was too short to judge, and on its own sets while it gets better."""
    excuses = (TOO_SHORT.code, STILL_LEARNING.code) if own_set else (TOO_SHORT.code,)
    reasons = [f"{finding.name}, {finding.evidence}" for finding in found if finding.code in excuses]
    reasons += [going_on] if going_on else []
    if not reasons:
        return poor
    return replace(poor, level="note", evidence=f"{poor.evidence}. No {poor.level}: {reasons[0]}")


def diagnose_evaluation(evaluation: Evaluation) -> Diagnosis:
    """Every rule that needs no more than an evaluation (rows E1 and E2), in well under a second."""
    start = time.perf_counter()
    piece = of_evaluation(evaluation)
    missing = [*piece.not_checked, *_NEEDS_MORE]
    return Diagnosis(ranked(piece.findings), missing, round(time.perf_counter() - start, 4))


def of_evaluation(evaluation: Evaluation) -> Piece:
    """What an evaluation shows: source use and outputs."""
    found = [finding for check in EVALUATION_CHECKS for finding in check(evaluation)]
    return Piece(found, _not_checked(evaluation), [f"the evaluation, of {len(evaluation.rows):,} examples"])


def ranked(findings: Sequence[Finding]) -> list[Finding]:
    """Errors, then warnings, then notes; inside a level in the order of `RULES`; but never a symptom above its cause.

    A cause that is only a warning thus comes before the error it explains.
    """
    order = {code: place for place, code in enumerate(RULES)}
    waiting = sorted(findings, key=lambda f: (LEVELS.index(f.level), order.get(f.code, len(order))))
    listed: list[Finding] = []
    while waiting:
        upcoming = waiting[0]
        while causes := [f for f in waiting if f.code in _all_causes(upcoming.code)]:
            upcoming = causes[0]  # the gravest finding waits for what explains it
        listed.append(upcoming)
        waiting.remove(upcoming)
    return listed


def explain(code: str) -> str:
    """A rule in full, for `sourcewise explain CODE`. Raises RequestError with the nearest code for an unknown one."""
    rule = RULES.get(code.strip().upper())
    if rule is None:
        near = difflib.get_close_matches(code.strip().upper(), list(RULES), n=1, cutoff=0.5)
        end = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(RULES))}"
        raise RequestError(f"{code}: no such rule; {end}")
    return rule.page()


@cache
def _all_causes(code: str) -> set[str]:
    """The codes that explain this one, directly or through others."""
    known: set[str] = set()
    rest = [code]
    while rest:
        rule = RULES.get(rest.pop())
        unseen = set(rule.causes) - known if rule else set()
        known |= unseen
        rest += unseen
    return known


def _not_checked(evaluation: Evaluation) -> list[str]:
    """What these rules cannot say of this evaluation, in words."""
    missing = []
    if source_use(evaluation.metrics, evaluation.references) == "not measured":
        missing.append("source use (SRC001): the evaluation has no source bits")
    rows = evaluation.rows
    if len(rows) < MIN_EXAMPLES:
        missing.append(f"outputs (OUT001 to OUT008): {len(rows)} examples, at least {MIN_EXAMPLES} are needed")
    elif not any(row.source for row in rows):
        missing.append("copying of the source (OUT008): the evaluation has no source texts")
    return missing
