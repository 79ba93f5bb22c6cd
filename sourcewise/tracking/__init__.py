"""Where people look at their trainings: TensorBoard, W&B, MLflow and trackio take figures and findings.

Nothing leaves the machine unless whoever trains has set that up in the tracker's own way (WANDB_MODE=online,
MLFLOW_TRACKING_URI, TRACKIO_SPACE_ID). A tracker that fails is left out with one line: no training ends by it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sourcewise.errors import RequestError
from sourcewise.tracking.base import Place, Tracker
from sourcewise.tracking.kinds import OPEN

__all__ = ["Place", "Tracker", "Trackers", "check_installed", "numbers_of"]


class Trackers:
    """Several at once: one that raises is told of in one line, and left out from then on."""

    def __init__(self, trackers: Iterable[Tracker] = ()) -> None:
        self.trackers = list(trackers)

    def open(self, names: Iterable[str], place: Place) -> None:
        """Begin to track a run by trackers of these names."""
        for name in names:
            with self._kept(name):
                self.trackers.append(OPEN[name](place))

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Figures of a step; what is no finite number is left out, for no tracker draws it."""
        drawn = {key: float(value) for key, value in numbers.items() if math.isfinite(value)}
        if drawn:
            self._each(lambda tracker: tracker.log(drawn, step))

    def alert(self, finding: Any, step: int) -> None:
        """A finding of a diagnosis."""
        title = f"{finding.code} {finding.name}"
        text = f"{finding.evidence}\n{finding.cure}"
        self._each(lambda tracker: tracker.alert(title, text, finding.level, step))

    def close(self) -> None:
        """Nothing follows."""
        self._each(lambda tracker: tracker.close())
        self.trackers = []

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for tracker in list(self.trackers):
            with self._kept(tracker.name, tracker):
                call(tracker)

    @contextlib.contextmanager
    def _kept(self, name: str, tracker: Tracker | None = None) -> Any:
        try:
            yield
        except Exception as problem:
            if tracker in self.trackers:
                self.trackers.remove(tracker)  # type: ignore[arg-type]
            text = " ".join(str(problem).split())[:300]
            print(f"sourcewise: {name}: not tracked: {type(problem).__name__}: {text}", file=sys.stderr)


def numbers_of(line: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a line of metrics.jsonl by name: `train/loss`, `train/update_ratios/encoder`, `valid/bleu`."""
    prefix = {"evaluation": "valid"}.get(line["kind"], line["kind"])
    return {f"{prefix}/{name}": value for name, value in _flat(line) if name not in ("step", "averaged")}


def _flat(values: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}/{inner}", number) for inner, number in _flat(value))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield name, value


def check_installed(names: Iterable[str]) -> None:
    """Raises RequestError for a tracker whose package is missing."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise RequestError(f"train.track: {name} is not installed: pip install 'sourcewise[trackers]'")
