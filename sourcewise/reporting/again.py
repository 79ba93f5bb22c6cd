"""How a run was made, for its report: versions, hardware and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sourcewise.reporting.curves import is_finite
from sourcewise.reporting.run_files import RunFiles
from sourcewise.runtime.info import here
from sourcewise.training.events import Evaluated, Step, of, started

OF_THE_NETWORK = (
    "kind",
    "step",
    "steps",
    "target_entropy",
)  # start line, neither version nor hardware


def environment(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Versions and hardware: those that the run logged (its start line), else those of this process."""
    if noted := started(lines):
        return [(str(key), _written(value)) for key, value in noted.items() if key not in OF_THE_NETWORK]
    return list(here().items())


def times(run: RunFiles) -> list[tuple[str, str]]:
    """Durations of training, evaluations and final evaluation in words, as far as logged."""
    timed = [line for line in run.lines if is_finite(line.get("seconds"))]
    steps, evaluations = of(timed, Step), [line["seconds"] for line in of(timed, Evaluated)]
    found = []
    if steps:
        found.append(("training", f"{duration(steps[-1]['seconds'])} for {steps[-1].get('step', 0):,} steps"))
    if evaluations:
        found.append(("evaluations", f"{duration(sum(evaluations))} for {len(evaluations)}"))
    if run.final and is_finite(run.metrics.get("seconds")):
        found.append(("final evaluation", duration(run.metrics["seconds"])))
    return found


def duration(seconds: float) -> str:
    """Seconds in words: `1 h 2 min`, `3 min 20 s`, `4 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _written(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
