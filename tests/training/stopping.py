"""Trainings that end in the middle."""

from __future__ import annotations

from typing import Any

from sourcewise.training.run import Run


class Stops:
    """A `Listener` with which a training ends after a step, as by a crash: nothing of that step is saved."""

    def __init__(self, step: int, error: BaseException | None = None) -> None:
        self.step, self.error = step, error or MemoryError("a crash")

    def started(self, run: Run, step: int, total: int) -> None:
        """See Listener."""

    def stepped(self, step: int, line: dict[str, Any] | None) -> None:
        """See Listener."""
        if step == self.step:
            raise self.error

    def evaluated(self, line: dict[str, Any]) -> None:
        """See Listener."""

    def stopped(self, run: Run, finished: bool) -> None:
        """See Listener."""
