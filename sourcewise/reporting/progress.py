"""Progress of a training: a bar on a terminal, plain lines in a log, and a report that is kept up to date."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from sourcewise.diagnosis.finding import Finding
from sourcewise.errors import RequestError
from sourcewise.figures import OF_TRAININGS, shown
from sourcewise.reporting.course_picture import draw_curves
from sourcewise.reporting.report import write_report
from sourcewise.reporting.tasks import own_figure
from sourcewise.training.run import Run

QUIET_SECONDS = 10  # between lines of a log
LEAST_SECONDS = 15  # between reports without an evaluation
FIRST_SECONDS = 2  # of a training before its first report: a shorter one has that of its end


class TrainingProgress:
    """A `Listener` that prints loss, speed and remaining time."""

    def __init__(self) -> None:
        self.bar: Progress | None = None
        self.task: TaskID | None = None
        self.total, self.first, self.began, self.printed = 0, 0, 0.0, 0.0

    def started(self, run: Run, step: int, total: int) -> None:
        """See Listener."""
        self.total, self.first, self.began = total, step, time.monotonic()
        what = "resuming" if step else "training"
        size = f"{run.parameters:,} parameters, " if run.parameters else ""
        native = f"; native code: {run.native_code}" if run.native_code else ""
        of = f" from step {step}" if step else ""
        print(f"{what} {run.folder}: {size}{total} steps{of}{native}", file=sys.stderr)
        if sys.stderr.isatty():
            from rich.console import Console

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
            self.bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self.task = self.bar.add_task("step", total=total, completed=step)
            self.bar.start()

    def stepped(self, step: int, line: dict[str, Any] | None) -> None:
        """See Listener."""
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=step)
            if line:
                self.bar.update(self.task, description=_words(line, "loss", "tokens_per_s"))
        elif line and time.monotonic() - self.printed > QUIET_SECONDS:
            self.printed = time.monotonic()
            left = (self.printed - self.began) / max(1, step - self.first) * (self.total - step)
            said = _words(line, "loss", "learning_rate", "tokens_per_s")
            self._say(f"step {step}/{self.total}  {said}  {_minutes(left)} left")

    def evaluated(self, line: dict[str, Any]) -> None:
        """See Listener."""
        if "loss" not in line:
            return
        self._say(
            f"step {line['step']}: "
            + "  ".join(each.said("progress", line.get(each.key)) for each in shown("progress"))
            + "".join(f"  {name}: {own_figure(each)}" for name, each in (line.get("tasks") or {}).items())
            + ("  (best)" if line.get("best") else "")
        )

    def found(self, step: int, finding: Finding) -> None:
        """Print a finding during the training in one line."""
        place = f"step {step}" if step else "before the first step"
        said = f"{place}: {finding.level} {finding.code}, {finding.name}: {finding.evidence}"
        self._say(f"{said}  (sourcewise explain {finding.code})")

    def stopped(self, run: Run, finished: bool) -> None:
        """See Listener."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def evaluating(self, what: str, done: int, of: int) -> None:
        """Print the progress of the final evaluation."""
        if sys.stderr.isatty():
            print(f"\r{what}: {done}/{of} ", end="\n" if done == of else "", file=sys.stderr, flush=True)
        elif done == of:
            print(f"{what}: {of} examples", file=sys.stderr)

    def _say(self, text: str) -> None:
        if self.bar is not None:
            self.bar.console.print(text, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)


class LiveReport:
    """A `Listener` that keeps report.html up to date, and draws training_curves.png (or .svg) at the end.

    The report is written at evaluations, as often as takes a tenth of the time, and between them a hundredth.
    """

    def __init__(self) -> None:
        self.run: Run | None = None
        self.after, self.next = 0.0, 0.0  # earliest time of the next report at an evaluation, and between

    def started(self, run: Run, step: int, total: int) -> None:
        """See Listener."""
        self.run, self.after = run, time.monotonic() + FIRST_SECONDS
        self.next = self.after

    def stepped(self, step: int, line: dict[str, Any] | None) -> None:
        """See Listener."""
        if line is not None and time.monotonic() > self.next:
            self._write()

    def evaluated(self, line: dict[str, Any]) -> None:
        """See Listener."""
        if time.monotonic() > self.after:
            self._write()

    def stopped(self, run: Run, finished: bool) -> None:
        """See Listener. An unfinished run is diagnosed now, unless Ctrl-C stops that; a finished one by `done`."""
        if finished:
            self.evaluated({})
            return
        try:
            self._draw(run, training=False)
        except (RequestError, KeyboardInterrupt):  # the training's own error is the one to be reported
            write_report(run.folder, training=True)

    def done(self, run: Run) -> None:
        """Write the final report, with the findings of `diagnose`, after the final evaluation."""
        self._draw(run, training=False)

    def interrupted(self, run: Run) -> None:
        """Draw what there is when the final evaluation was interrupted."""
        self._draw(run, training=True)

    def _draw(self, run: Run, training: bool) -> None:
        lines = run.metrics()
        if lines:
            draw_curves(lines, run.folder)
        write_report(run.folder, training=training)

    def _write(self) -> None:
        if self.run is not None:
            began = time.monotonic()
            write_report(self.run.folder, training=True)
            now = time.monotonic()
            self.after = now + 10 * (now - began)
            self.next = now + max(LEAST_SECONDS, 100 * (now - began))


def _words(line: Mapping[str, Any], *keys: str) -> str:
    """Figures of a log line in words."""
    return "  ".join(OF_TRAININGS[key].said("progress", line.get(key)) for key in keys)


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
