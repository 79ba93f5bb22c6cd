"""The figures of a mixture's tasks in a few words, for the terminal, the log and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sourcewise.figures import FIGURES, Figure, figures, written

COLUMNS = ("task", "examples", "its metric", "loss", "source bits", "distinct outputs")


def own_figure(of_task: Mapping[str, Any]) -> str:
    """A task's own metric with its value: `BLEU 31.2`."""
    metric = of_task["metric"]
    figure = figures().get(metric) or Figure(key=metric, label=metric)  # of a plug-in that is no longer installed
    return figure.said("task", of_task.get(metric))


def task_rows(metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row of `COLUMNS` per task; empty unless the set is a mixture."""

    def cells(of_task: Mapping[str, Any], *keys: str) -> list[str]:
        return [written(FIGURES[key].format, of_task.get(key)) for key in keys]

    return [
        (str(name), *cells(each, "examples"), own_figure(each), *cells(each, "loss", "source_bits", "unique_pct"))
        for name, each in (metrics.get("tasks") or {}).items()
    ]
