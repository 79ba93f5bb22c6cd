"""A training of ours in the trackers that its recipe names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sourcewise.config import Recipe
from sourcewise.diagnosis.finding import Finding
from sourcewise.tracking import Place, Trackers, numbers_of
from sourcewise.training.events import Line
from sourcewise.training.run import Run


class Tracked:
    """A `Listener` that hands on lines of the log, and findings."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.trackers = recipe, Trackers()

    def started(self, run: Run, step: int, total: int) -> None:
        """See Listener."""
        settings = dict(_flat(self.recipe.model_dump(mode="json", exclude_defaults=True)))
        self.trackers.open(self.recipe.train.track, Place(run.folder, settings, step))

    def stepped(self, step: int, line: Line | None) -> None:
        """See Listener."""
        if line is not None:
            self.trackers.log(numbers_of(line), step)

    def evaluated(self, line: Line) -> None:
        """See Listener."""
        self.trackers.log(numbers_of(line), int(line["step"]))

    def found(self, step: int, finding: Finding) -> None:
        """A finding, at a step."""
        self.trackers.alert(finding, step)

    def stopped(self, run: Run, finished: bool) -> None:
        """See Listener."""
        self.trackers.close()


def _flat(tree: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Options by their dotted names."""
    found: list[tuple[str, Any]] = []
    for name, value in tree.items():
        found += _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else [(f"{before}{name}", value)]
    return found
