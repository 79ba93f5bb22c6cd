"""What becomes of findings in somebody else's training: its logs, its history, and the terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sourcewise.diagnosis.answer import Piece
from sourcewise.diagnosis.finding import Finding
from sourcewise.errors import RequestError
from sourcewise.tracking import Trackers

PREFIX = "sourcewise_"


class Told:
    """Tells what is new: each finding once a level, each kind of problem once."""

    def __init__(self, trainer: Any = None) -> None:
        """With the `trainer` figures go through its `log`, to all that watch it; without, into its history alone."""
        self.trainer = trainer
        self.state: Any = None  # the Trainer's, of its latest event
        self.trackers = Trackers()  # that are given findings, and figures where no Trainer logs them
        self._problems: dict[tuple[str, str], str] = {}
        self._findings: set[tuple[str, str]] = set()
        self._codes: set[str] = set()

    @property
    def problems(self) -> list[str]:
        """What could not be looked at, and why: one line per kind."""
        return list(self._problems.values())

    def knows(self, what: str) -> bool:
        """Whether it was said already that this could not be looked at."""
        return any(known == what for known, _ in self._problems)

    def problem(self, what: str, why: str) -> None:
        """Note what could not be looked at, and print and log it the first time."""
        kind = what, re.sub(r"\d+", "", why)[:80]
        if kind in self._problems:
            return
        self._problems[kind] = f"{what}: {why}"
        step = 0 if self.state is None else self.state.global_step
        if self.state is not None:
            self.state.log_history.append({f"{PREFIX}not_checked": self.problems, "step": step})
        print(f"sourcewise: step {step}: not checked: {what}: {why}", file=sys.stderr)

    def findings(self, found: Sequence[Finding], figures: Mapping[str, float] | None) -> None:
        """Log figures and findings, and print those that are new; without figures only if some are new."""
        new = [finding for finding in found if (finding.code, finding.level) not in self._findings]
        if figures is None and not new:
            return
        numbers: dict[str, Any] = dict(figures or {})
        for level in ("error", "warning"):
            numbers[f"{PREFIX}{level}s"] = sum(finding.level == level for finding in found)
        codes = {finding.code for finding in found if finding.level != "note"}
        numbers |= {f"{PREFIX}{code}": int(code in codes) for code in sorted(codes | self._codes)}
        self._codes |= codes
        self._findings |= {(finding.code, finding.level) for finding in new}
        step = 0 if self.state is None else self.state.global_step
        for finding in new:
            print(_line(finding, step), file=sys.stderr)
            self.trackers.alert(finding, step)
        if self.state is None:
            return
        if new:
            texts = [finding.to_dict() for finding in found]
            self.state.log_history.append({f"{PREFIX}findings": texts, "step": self.state.global_step})
        if figures is None and all(finding.level == "note" for finding in new):
            return  # no figure has changed
        if self.trainer is None:
            self.trackers.log(numbers, step)
            self.state.log_history.append({**numbers, "step": self.state.global_step})
        else:
            self._log(numbers)

    def _log(self, numbers: dict[str, Any]) -> None:
        """Through the Trainer; what is still to be logged, saved or stopped is not to be decided by our figures."""
        control = self.trainer.control
        flags = dict(vars(control))
        try:
            self.trainer.log(numbers)
        finally:
            vars(control).update(flags)
            self.trainer.control = control


def _line(finding: Finding, step: int) -> str:
    cure = finding.cure.splitlines()[0].rstrip(":")
    head = f"sourcewise: step {step}: {finding.level} {finding.code} {finding.name}: {finding.evidence}"
    return f"{head}\n  {cure} (sourcewise explain {finding.code})"


def said(problem: BaseException) -> str:
    """What went wrong, in a line; for what nobody foresaw with its kind."""
    text = " ".join(str(problem).split())[:300]
    return text if isinstance(problem, RequestError) else f"{type(problem).__name__}: {text}".rstrip(": ")


def set_name(metrics: Mapping[str, Any] | None) -> str:
    """Which of several evaluation sets it is: their figures are called eval_NAME_runtime; empty where there is one."""
    keys = [key.removesuffix(end) for key in metrics or () for end in ("_runtime", "_loss") if key.endswith(end)]
    return min(keys, key=len, default="eval").removeprefix("eval").strip("_")


def of_set(piece: Piece, name: str) -> Piece:
    """What was found, with the name of the set where there are several."""
    if not name:
        return piece
    findings = [replace(finding, evidence=f"{name}: {finding.evidence}") for finding in piece.findings]
    return Piece(findings, [f"{name}: {words}" for words in piece.not_checked])
