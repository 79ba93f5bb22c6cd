"""The doctor during training: the rules over its course, asked again as it goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sourcewise.config import Recipe
from sourcewise.diagnosis import ours
from sourcewise.diagnosis.answer import Piece
from sourcewise.diagnosis.finding import LEVELS, Finding, Level
from sourcewise.diagnosis.rules import look
from sourcewise.training.run import Run

OFTEN = 50  # lines between which every line is judged; later, a share of them


class Watch:
    """A `Listener` that writes each new finding to metrics.jsonl, a line of kind "finding", and tells what is no note.

    A finding is new when its code was not found before, or not as grave. What it says depends on the lines alone: a
    resumed run finds the same. A line of kind "watch" says that the doctor looks on, and what the pre-flight left out.
    """

    def __init__(self, recipe: Recipe, told: Callable[[int, Finding], None], before: Piece | None = None) -> None:
        """`told` is given the step and the finding; `before` is what the pre-flight found, and could not look at."""
        self.recipe, self.told, self.before = recipe, told, before
        self.run: Run | None = None
        self.lines: list[dict[str, Any]] = []
        self.known: dict[str, int] = {}  # the gravest level of each code, as its place in LEVELS

    def started(self, run: Run, step: int, total: int) -> None:
        """See Listener. A run that was killed between an evaluation and its findings has them now."""
        self.run, self.lines = run, run.metrics()
        for line in self.lines:
            if line["kind"] == "finding":
                self._is_new(line["code"], line["level"])
        if step == 0 and all(line["kind"] != "watch" for line in self.lines):
            unseen = None if self.before is None else list(self.before.not_checked)
            run.append({"kind": "watch", "step": 0, "preflight": unseen is not None, "not_checked": unseen or []})
        for finding in self.before.findings if self.before else ():
            self._tell(0, finding)
        course = [line for line in self.lines if line["kind"] != "finding"]
        if step and course[-1]["kind"] == "evaluation":
            self._judge(step)

    def stepped(self, step: int, line: dict[str, Any] | None) -> None:
        """See Listener."""
        if line is None:
            return
        self.lines.append(line)
        count = sum(each["kind"] == "train" for each in self.lines)
        if count % max(1, count // OFTEN) == 0:
            self._judge(step)

    def evaluated(self, line: dict[str, Any]) -> None:
        """See Listener."""
        self.lines.append(line)
        self._judge(int(line["step"]))

    def stopped(self, run: Run, finished: bool) -> None:
        """See Listener."""

    def _judge(self, step: int) -> None:
        for finding in look(ours.course_of(self.lines, self.recipe)).findings:
            self._tell(step, finding)

    def _tell(self, step: int, finding: Finding) -> None:
        if self.run is not None and self._is_new(finding.code, finding.level):
            self.run.append({"kind": "finding", "step": step, **finding.to_dict()})
            if finding.level != "note":
                self.told(step, finding)

    def _is_new(self, code: str, level: Level) -> bool:
        grave = LEVELS.index(level)
        if self.known.get(code, len(LEVELS)) <= grave:
            return False
        self.known[code] = grave
        return True
