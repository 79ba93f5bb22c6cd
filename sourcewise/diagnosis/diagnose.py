"""From findings to a diagnosis: ranked, the cause first, and honest about what was not looked at."""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sourcewise.diagnosis.early import judged_fairly
from sourcewise.diagnosis.finding import LEVELS, Finding
from sourcewise.diagnosis.rules import EVALUATION_CHECKS, RULES
from sourcewise.diagnosis.rules.outputs import MIN_EXAMPLES
from sourcewise.errors import RequestError
from sourcewise.evaluation.results import Evaluation
from sourcewise.evaluation.verdict import source_use

if TYPE_CHECKING:
    from sourcewise.data.examples import Dataset
    from sourcewise.generation.model import Model

_NEEDS_MORE = (
    "the training data: imbalance, duplicates, misaligned pairs",
    "the wiring: masks, labels, frozen parts, gradients",
    "the course of training: learning rate, over-fitting",
)


@dataclass(frozen=True, slots=True)
class Piece:
    """What one look found, and what it could not look at, in words."""

    findings: Sequence[Finding] = ()
    not_checked: Sequence[str] = ()
    early: str = ""  # why what is found is too early to judge, where it is


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The answer of `sourcewise diagnose`: ill if any finding is an error; what is listed first is then the cause."""

    findings: list[Finding]
    not_checked: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def cause(self) -> str | None:
        """The code of the first finding if any is an error: that error, or what explains it; else None."""
        ill = any(finding.level == "error" for finding in self.findings)
        return self.findings[0].code if ill else None

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
    model: Model | str | Path, data: str | Path | Dataset | None = None, *, task: str | None = None
) -> Diagnosis:
    """Diagnose a model on a set: a loaded model, a run folder, a Hugging Face folder or a hub name.

    Of a run all is looked at that is still there: its recipe's data and wiring, its course, its network, its outputs.
    Without `data` it is judged by the evaluation it holds, and else on its own test or validation set.
    `task` says of which task of a mixture `data` is. Raises RequestError where there is nothing to judge by.
    """
    from sourcewise.diagnosis.whole import whole

    start = time.perf_counter()
    pieces = whole(model, data, task)
    return put_together(pieces, time.perf_counter() - start)


def put_together(pieces: Sequence[Piece], seconds: float = 0.0) -> Diagnosis:
    """One diagnosis of several looks: a finding a code, ranked."""
    found = [finding for piece in pieces for finding in piece.findings]
    missing = [words for piece in pieces for words in piece.not_checked]
    early = next((piece.early for piece in pieces if piece.early), "")
    return Diagnosis(ranked(judged_fairly(_once(found), early)), missing, round(seconds, 4))


def _once(findings: Sequence[Finding]) -> list[Finding]:
    """One finding a code, the gravest and then the first; a rule may speak of the recipe and of the trained network."""
    kept: dict[str, Finding] = {}
    for finding in sorted(findings, key=lambda f: LEVELS.index(f.level)):
        kept.setdefault(finding.code, finding)
    return list(kept.values())


def diagnose_evaluation(evaluation: Evaluation) -> Diagnosis:
    """Every rule that needs no more than an evaluation (rows E1 and E2), in well under a second."""
    start = time.perf_counter()
    piece = of_evaluation(evaluation)
    missing = [*piece.not_checked, *_NEEDS_MORE]
    return Diagnosis(ranked(piece.findings), missing, round(time.perf_counter() - start, 4))


def of_evaluation(evaluation: Evaluation) -> Piece:
    """What an evaluation shows: source use and outputs."""
    return Piece([finding for check in EVALUATION_CHECKS for finding in check(evaluation)], _not_checked(evaluation))


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
