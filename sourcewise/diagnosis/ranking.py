"""From findings to a diagnosis: ranked, the cause first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from sourcewise.diagnosis.answer import Diagnosis, Piece
from sourcewise.diagnosis.early import judged_fairly
from sourcewise.diagnosis.finding import LEVELS, Finding
from sourcewise.diagnosis.rules import RULES
from sourcewise.diagnosis.rules.outputs.out009_poor_verdict import PoorVerdict
from sourcewise.diagnosis.rules.training.trn013_too_short_to_judge import TooShortToJudge
from sourcewise.diagnosis.rules.training.trn014_still_learning import StillLearning


def put_together(pieces: Sequence[Piece], seconds: float = 0.0, *, own_set: bool = True) -> Diagnosis:
    """One diagnosis of several looks: a finding a code, ranked. `own_set`: the outputs are of a set of the training."""
    found = [finding for piece in pieces for finding in piece.findings]
    missing = [words for piece in pieces for words in piece.not_checked]
    early = next((piece.early for piece in pieces if piece.early), "")
    still = early or "the training is not over, or its loss still fell at its end"
    going_on = still if any(piece.going_on for piece in pieces) else ""
    once = _once(found)
    poor = [_excused(f, once, going_on if own_set else "", own_set) for f in once if f.code == PoorVerdict.code]
    failed = any(finding.level == "error" for finding in poor)
    judged = judged_fairly([f for f in once if f.code != PoorVerdict.code], early, failed=failed)
    return Diagnosis(ranked([*judged, *poor]), missing, round(seconds, 4))


def _once(findings: Sequence[Finding]) -> list[Finding]:
    """One finding a code, the gravest and then the first; a rule may speak of the recipe and of the trained network."""
    kept: dict[str, Finding] = {}
    for finding in sorted(findings, key=lambda f: LEVELS.index(f.level)):
        kept.setdefault(finding.code, finding)
    return list(kept.values())


def _excused(poor: Finding, found: Sequence[Finding], going_on: str, own_set: bool) -> Finding:
    """A poor verdict is a note where the training was too short to judge, and on its own sets while it gets better."""
    excuses = (TooShortToJudge.code, StillLearning.code) if own_set else (TooShortToJudge.code,)
    reasons = [f"{finding.name}, {finding.evidence}" for finding in found if finding.code in excuses]
    reasons += [going_on] if going_on else []
    if not reasons:
        return poor
    return replace(poor, level="note", evidence=f"{poor.evidence}. No {poor.level}: {reasons[0]}")


def ranked(findings: Sequence[Finding]) -> list[Finding]:
    """Errors, then warnings, then notes; inside a level in the order of `RULES`; but never a symptom above its cause.

    A cause that is only a warning thus comes before the error it explains.
    """
    order = {code: place for place, code in enumerate(RULES)}
    waiting = sorted(findings, key=lambda f: (LEVELS.index(f.level), order.get(f.code, len(order))))
    listed: list[Finding] = []
    while waiting:
        upcoming, passed = waiting[0], {waiting[0].code}
        while causes := [f for f in waiting if f.code in _all_causes(upcoming.code) - passed]:
            upcoming = causes[0]  # the gravest finding waits for what explains it
            passed.add(upcoming.code)  # rules of other packages may explain each other
        listed.append(upcoming)
        waiting.remove(upcoming)
    return listed


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
