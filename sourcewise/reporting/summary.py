"""The head of a report: figures, state of the training, and the next step for the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sourcewise.evaluation.results import TRANSLATIONS_FILE
from sourcewise.evaluation.verdict import Verdict
from sourcewise.figures import OF_TRAININGS, shown
from sourcewise.reporting.again import duration
from sourcewise.reporting.checked import Checked
from sourcewise.reporting.curves import is_finite, series
from sourcewise.reporting.run_files import RunFiles
from sourcewise.training.events import Evaluated, Step, of, started


def next_step(run: RunFiles, checked: Checked, said: Verdict | None) -> str:
    """The next step for the user, in one sentence."""
    if cause := checked.diagnosis.cause:
        so_far = ", as far as can be told while it trains" if checked.training else ""
        return f"Start with {cause}{so_far}: what is listed under it may be its consequence."
    if said is None and run.final:
        return f"The outputs ({TRANSLATIONS_FILE}) are not here: without them there is no verdict and no diagnosis."
    if said is None:
        return "No outputs yet: the verdict and the findings follow with the first evaluation that writes them."
    if checked.findings:
        return "Nothing that makes the model useless; the findings below cost quality."
    losses = series(run.lines, Evaluated, "loss")
    if len(losses) > 1 and losses[-1][1] <= min(value for _, value in losses):
        return "Nothing is wrong, and the validation loss was lowest at the end: longer training may still help."
    return "Nothing is wrong in what was checked."


def progress(run: RunFiles) -> str:
    """State of the training (step, epoch, time, speed) in words; empty without log lines."""
    steps = of(run.lines, Step)
    if not steps:
        return ""
    last, start = steps[-1], started(run.lines)
    asked = run.recipe.get("train")
    planned = start.get("steps") or (asked.get("steps") if isinstance(asked, dict) else None)
    text = f"step {last.get('step', 0):,}" + (f" of {planned:,}" if isinstance(planned, int) else "")
    if is_finite(last.get("epoch")):
        text += f", epoch {last['epoch']:.4g}"
    if is_finite(last.get("seconds")):
        text += f", {duration(last['seconds'])}"
    if is_finite(last.get("tokens_per_s")):
        text += f", {OF_TRAININGS['tokens_per_s'].said('progress', last['tokens_per_s'])}"
    return text


def tiles(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    """The figures at the top of the report: name, value, meaning, and a second figure beside it."""
    return [
        {
            "name": each.title,
            "value": each.at("tile").format(metrics[each.key]),
            "meaning": each.meaning,
            "aside": _aside(each.key, metrics),
        }
        for each in shown("tile")
        if is_finite(metrics.get(each.key))
    ]


def _aside(key: str, metrics: Mapping[str, Any]) -> str:
    """The interval or second figure that is printed beside a figure; empty for most."""
    interval = metrics.get("source_bits_ci95")
    if key == "source_bits" and isinstance(interval, Sequence) and all(map(is_finite, interval)):
        return f"{interval[0]:.2f} to {interval[1]:.2f} (95\u00a0%)"
    if key == "unique_pct" and is_finite(metrics.get("reference_unique_pct")):
        return f"references: {metrics['reference_unique_pct']:.1f}\u00a0%"
    if key == "loss" and is_finite(metrics.get("loss_shuffled")):
        return f"another's source: {metrics['loss_shuffled']:.3f}"
    return ""
