"""Progress of a comparison: a bar over all trainings on a terminal, one line per training in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from sourcewise.comparison.finished import Finished, State
from sourcewise.comparison.plan import Comparison, Planned
from sourcewise.figures import FIGURES
from sourcewise.training.events import LINES_FILE, last_line


class ComparisonProgress:
    """Prints the number of finished trainings, the state of the running ones, and the estimated time left."""

    def __init__(self, comparison: Comparison, states: dict[str, State]) -> None:
        self.comparison, self.total = comparison, len(states)
        self.done = self.reused = sum(state == "finished" for state in states.values())
        self.began = time.monotonic()
        console = Console(stderr=True)
        columns = (TextColumn("{task.completed}/{task.total}"), BarColumn(20), TextColumn("{task.description}"))
        self.bar = Progress(*columns, console=console, transient=True) if console.is_terminal else None
        self.task = self.bar.add_task("", total=self.total, completed=self.done) if self.bar else None
        going_on = sum(state == "interrupted" for state in states.values())
        self._say(
            f"comparing {len(comparison.variants)} variants in {comparison.folder}: {self.total} trainings"
            + (f", {self.reused} finished" if self.reused else "")
            + (f", {going_on} interrupted" if going_on else "")
        )

    def __enter__(self) -> ComparisonProgress:
        self.began = time.monotonic()
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()

    def checking(self, planned: Planned) -> None:
        """Called before a variant is checked."""
        self._say(f"checking {planned.variant}")

    def polled(self, running: Sequence[Planned]) -> None:
        """See Watcher."""
        if self.bar and self.task is not None:
            self.bar.update(self.task, completed=self.done, description="   ".join(map(_where, running)))

    def ended(self, planned: Planned, error: str | None) -> None:
        """Called when a training ended, with its error or None."""
        self.done += 1
        if error is not None:
            self._say(f"{self.done}/{self.total} {planned.name} failed: {error}")
            return
        self._say(f"{self.done}/{self.total} {planned.name}: {_found(Finished.read(planned))}{self._left()}")

    def _left(self) -> str:
        """Estimated time left, in words."""
        left = (time.monotonic() - self.began) / (self.done - self.reused) * (self.total - self.done)
        return f"; about {left / 60:.0f} min left" if self.done < self.total else ""

    def _say(self, text: str) -> None:
        if self.bar and self.bar.live.is_started:
            self.bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)


def _found(finished: Finished) -> str:
    """The figures of one training in a few words."""
    known = [(FIGURES[key], finished.metrics.get(key)) for key in ("bleu", "wer", "source_bits")]
    words = [f"{each.heading} {each.number.format(value)}" for each, value in known if isinstance(value, float)]
    return ", ".join([*words, f"{finished.minutes:.1f} min"])


def _where(planned: Planned) -> str:
    """Name, step and loss of a running training."""
    line = last_line(planned.folder / LINES_FILE)
    if line is None:
        return f"{planned.name} starting"
    of = f"/{planned.recipe.train.steps}" if planned.recipe.train.steps else ""
    loss = f" loss {line['loss']:.2f}" if isinstance(line.get("loss"), float) else ""
    return f"{planned.name} step {line.get('step', 0)}{of}{loss}"
