"""Too early to judge: what a training that still gets better shows may be nothing but what is not learned yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sourcewise.diagnosis.finding import Finding, Level
from sourcewise.diagnosis.rules.outputs.out003_generic_phrases import GenericPhrases
from sourcewise.diagnosis.rules.outputs.out004_repetition import Repetition
from sourcewise.diagnosis.rules.outputs.out005_length import Length
from sourcewise.diagnosis.rules.outputs.out007_endless_outputs import EndlessOutputs
from sourcewise.diagnosis.rules.source.src001_source_unused import SourceUnused
from sourcewise.diagnosis.rules.training.trn001_not_finite import NotFinite
from sourcewise.diagnosis.rules.training.trn003_loss_does_not_fall import LossDoesNotFall
from sourcewise.diagnosis.rules.training.trn004_tokens_frequencies_alone import TokensFrequenciesAlone
from sourcewise.diagnosis.rules.training.trn005_language_model import LanguageModel
from sourcewise.diagnosis.rules.training.trn013_too_short_to_judge import TooShortToJudge
from sourcewise.diagnosis.rules.training.trn014_still_learning import StillLearning

NETWORK = ("SRC", "MEM", "ATT", "OUT")  # the rules over what a training has come to, by their first letters
NOTES: dict[Level, Level] = {"error": "note", "warning": "note"}
ONE_LOWER: dict[Level, Level] = {"error": "warning", "warning": "note"}
LOOPS = (Repetition.code, EndlessOutputs.code, Length.code, GenericPhrases.code)  # and what comes of them
NOT_YET = (LossDoesNotFall.code, TokensFrequenciesAlone.code)


def judged_fairly(findings: list[Finding], early: str = "", *, failed: bool = False) -> list[Finding]:
    """What is not learned yet is a note, where that is no fault; `early` is what `course.too_early` says.

    An unread source stays a warning where the outputs `failed` in a training that is over: it says why they did.

    That is so of a training too short to judge (TRN013), and while a training gets better. At its end, where it still
    does (TRN014) after more than a few steps, loops and what comes of them are notes, other poor outputs a level
    lower; not where the source is unread and its bits do not rise.
    """
    found = {finding.code: finding for finding in findings}
    if short := found.get(TooShortToJudge.code):
        return _lowered(findings, ("TRN", *NETWORK), NOTES, short.evidence, but=NotFinite.code)
    if early:
        findings = _lowered(findings, (SourceUnused.code,), ONE_LOWER if failed else NOTES, early)
        return _lowered(findings, (*NOT_YET, *NETWORK), NOTES, early, but=SourceUnused.code)
    still, unread = found.get(StillLearning.code), found.get(LanguageModel.code)
    rising = unread is not None and unread.level == "warning"
    if still and (rising or (SourceUnused.code not in found and not unread)):
        findings = _lowered(findings, LOOPS, NOTES, still.evidence)
        return _lowered(findings, ("OUT", SourceUnused.code), ONE_LOWER, still.evidence)
    return findings


def _lowered(
    findings: Sequence[Finding], codes: tuple[str, ...], to: Mapping[Level, Level], why: str, but: str = ""
) -> list[Finding]:
    """The same, those with such codes (`but` one) less grave, and why. A limit that is too low is none of training."""
    own_cure = {rule.code: rule.cure for rule in (Repetition, EndlessOutputs)}
    return [
        replace(f, level=to[f.level], evidence=f"{f.evidence}. No {f.level}: {why}")
        if f.level in to and f.code.startswith(codes) and f.code != but and own_cure.get(f.code, f.cure) == f.cure
        else f
        for f in findings
    ]
