"""Figures of a set, and of each task of a mixture with its own metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sourcewise.baselines.measure import Baselines, joined
from sourcewise.config import EvaluationConfig
from sourcewise.data.encoding import ExampleSet
from sourcewise.errors import tell
from sourcewise.evaluation.results import Row
from sourcewise.evaluation.source_bits import SourceBits
from sourcewise.evaluation.verdict import judging_metric
from sourcewise.figures import figures
from sourcewise.metrics.conventions import wer_says_little
from sourcewise.metrics.counting import ON_REQUEST
from sourcewise.metrics.outputs import output_metrics, plugin_metrics
from sourcewise.metrics.texts import plain

Beside = Sequence[Baselines | None]  # the baselines of each part of a set

_told: set[str] = set()  # sets whose WER was remarked on, since a training evaluates many times


def set_figures(
    encoded: ExampleSet,
    rows: Sequence[Row],
    bits: SourceBits,
    options: EvaluationConfig | None = None,
    beside: Beside = (),
) -> dict[str, Any]:
    """The figures of `metrics.json` for a complete set, from its rows, source bits and baselines."""
    options = options or EvaluationConfig()
    low, high = bits.ci95()
    references, outputs = [r.references for r in rows], [r.output for r in rows]
    finished = [r.finished for r in rows]
    if encoded.dataset.name not in _told and (unfit := wer_says_little(references, options.counting)):
        _told.add(encoded.dataset.name)
        tell(f"{encoded.dataset.name}: {unfit}")
    return {
        "loss": bits.loss,
        "loss_shuffled": bits.loss_shuffled,
        "source_bits": bits.bits,
        "source_bits_ci95": [low, high],
        **output_metrics(references, outputs, finished, options.counting, options.metrics),
        **({} if encoded.dataset.dims else any_reference(rows)),
        "target_tokens": int(bits.tokens.sum()),
        **plugin_metrics(outputs, [r.reference for r in rows]),
        **_place(encoded, rows, beside),
    }


def _place(encoded: ExampleSet, rows: Sequence[Row], beside: Beside) -> dict[str, Any]:
    """Which figure judges the set, its interval, and where it lies beside the baselines, as far as these are known."""
    own = encoded.parts[0].dataset.task.metric if len(encoded.parts) == 1 else None
    metric = judging_metric([r.reference for r in rows], own)
    baselines = joined(beside, metric) if beside else None
    if baselines is None:
        return {"judged_by": metric}
    found = baselines.against([r.output for r in rows])
    interval = f"{metric}_ci95"
    place = {
        "above_copying": found["copy"].get("difference"),
        "above_copying_ci95": found["copy"].get("difference_ci95"),
    }
    return {"judged_by": metric, interval: found["outputs"].get(interval), **place, "baselines": found}


def task_figures(
    encoded: ExampleSet,
    rows: Sequence[Row],
    bits: SourceBits,
    options: EvaluationConfig | None = None,
    beside: Beside = (),
) -> dict[str, Any]:
    """`tasks`: the figures of each part of a mixture, and which is its own (`metric`); `tasks_mean`: these on average.

    `tasks_mean` averages `Figure.points`, 0..100. For a single set it is the set's own metric; without one the result
    is empty.
    """
    options, parts = options or EvaluationConfig(), encoded.parts
    if len(parts) == 1 and parts[0].dataset.task.metric is None:
        return {}
    found: dict[str, dict[str, Any]] = {}
    start = 0
    for i, part in enumerate(parts):
        these = slice(start, start + len(part))
        metric = part.dataset.task.metric or "bleu"
        own_figures = options.with_metric(metric)
        of_it = set_figures(part, rows[these], bits.select(these), own_figures, beside[i : i + 1])
        of_task = {"metric": metric, **of_it}
        found[part.dataset.task.name] = of_task
        start = these.stop
    own = [_points(each) for each in found.values()]
    mean = {"tasks_mean": sum(own) / len(own)}
    if len(parts) > 1:
        return {**mean, "tasks": found}
    (alone,) = found.values()
    measured = [key for key in ON_REQUEST if key in alone]
    return mean | {name: alone[name] for key in measured for name in (key, f"{key}_signature")}


def _points(of_task: dict[str, Any]) -> float:
    """A task's own metric from 0 to 100; NaN if a plug-in failed to measure it."""
    value = of_task[of_task["metric"]]
    return math.nan if value is None else figures()[of_task["metric"]].points(value)


def any_reference(rows: Sequence[Row]) -> dict[str, float]:
    """`exact_any_pct`: outputs equal to any reference of the same source text.

    Empty if no source text has several references, since it then equals `exact_match_pct`.
    """
    known: dict[str, set[str]] = {}
    for row in rows:
        known.setdefault(row.source, set()).update(map(plain, row.references))
    if len(known) == len(rows) or all(len(references) == 1 for references in known.values()):
        return {}
    return {"exact_any_pct": 100 * sum(plain(row.output) in known[row.source] for row in rows) / len(rows)}
