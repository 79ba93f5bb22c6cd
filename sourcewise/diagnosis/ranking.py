"""From findings to a diagnosis: what is too early to judge is no fault, and the cause comes first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

from sourcewise.diagnosis.answer import Diagnosis, Piece
from sourcewise.diagnosis.finding import LEVELS, Finding, Level
from sourcewise.diagnosis.rule import Rule, matching
from sourcewise.diagnosis.rules import RULES

NOTES: Mapping[Level, Level] = {"error": "note", "warning": "note"}
ONE_LOWER: Mapping[Level, Level] = {"error": "warning", "warning": "note"}


def put_together(pieces: Sequence[Piece], seconds: float = 0.0, *, own_set: bool = True) -> Diagnosis:
    """One ranked diagnosis of several looks, one finding per code. `own_set`: outputs are of a set of the training."""
    found = _once([finding for piece in pieces for finding in piece.findings])
    early = next((piece.early for piece in pieces if piece.early), "")
    still = [f"{f.name}, {f.evidence}" for f in found if f.code in RULES and RULES[f.code].gets_better]
    going_on = next(filter(None, [*still, *(piece.going_on for piece in pieces)]), "") if own_set else ""
    missing = [words for piece in pieces for words in piece.not_checked]
    return Diagnosis(ranked(judged_fairly(found, early, going_on)), missing, round(seconds, 4))


def _once(findings: Sequence[Finding]) -> list[Finding]:
    """One finding per code, the gravest, then the first; a rule may speak of recipe and trained network."""
    kept: dict[str, Finding] = {}
    for finding in sorted(findings, key=lambda f: LEVELS.index(f.level)):
        kept.setdefault(finding.code, finding)
    return list(kept.values())


class _Excuse(NamedTuple):
    codes: frozenset[str]
    to: Mapping[Level, Level]
    why: str


def judged_fairly(findings: Sequence[Finding], early: str = "", going_on: str = "") -> list[Finding]:
    """What is not learned yet is less grave, where that is no fault.

    `early` says why a training cannot be judged yet: what it has `learned` is a note then. `going_on` says that it
    gets better. Rules that are found excuse others, and soften them (see `Rule`). The mildest of all that holds.
    """
    levels = {finding.code: finding.level for finding in findings}
    if any(RULES[code].implies for code in levels if code in RULES):
        early = ""  # a rule says so itself
    excuses: list[_Excuse] = []
    if early:
        learned = (code for code, rule in RULES.items() if rule.learned and not rule.says_why)
        excuses.append(_Excuse(frozenset(learned), NOTES, early))
    for finding in findings:
        rule = RULES.get(finding.code)
        if rule is not None and rule.excusing(levels):
            for patterns, to in ((rule.excuses, NOTES), (rule.softens, ONE_LOWER)):
                excuses.append(_Excuse(frozenset(matching(patterns, tuple(RULES))), to, finding.evidence))
    if going_on:
        passing = (code for code, rule in RULES.items() if rule.until_the_end)
        excuses.append(_Excuse(frozenset(passing), NOTES, going_on))
    judged = {finding.code: _lowered(finding, excuses) for finding in findings}
    for finding in findings if early else ():  # now that it is known which errors stand
        rule = RULES.get(finding.code)
        if rule is not None and rule.says_why:
            beside = any(f"{code}:{each.level}" in rule.says_why.split() for code, each in judged.items())
            own = _Excuse(frozenset({finding.code}), ONE_LOWER if beside else NOTES, early)
            judged[finding.code] = _lowered(finding, [own, *excuses])
    return list(judged.values())


def _lowered(finding: Finding, excuses: Sequence[_Excuse]) -> Finding:
    """The same, less grave, and why. What has a cure of its own and was not learned is none of training."""
    rule: Rule[Any] | None = RULES.get(finding.code)
    if rule is not None and rule.learned and finding.cure != rule.cure:
        return finding
    found = [each for each in excuses if finding.code in each.codes and finding.level in each.to]
    if not found:
        return finding
    mildest = max(found, key=lambda each: LEVELS.index(each.to[finding.level]))
    evidence = f"{finding.evidence}. No {finding.level}: {mildest.why}"
    return replace(finding, level=mildest.to[finding.level], evidence=evidence)


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
