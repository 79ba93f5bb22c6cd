"""Charts of a training's course over its steps, for report.html and the page of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sourcewise.reporting.charts import STYLES, Line, line_chart
from sourcewise.reporting.curves import is_finite, series, smoothed
from sourcewise.training.events import Evaluated, Step, of

if TYPE_CHECKING:
    from markupsafe import Markup

Lines = Sequence[Mapping[str, Any]]  # of a metrics.jsonl

# Figures in charts of several runs: key of an evaluation line → title, unit, least upper end of the axis.
COMPARED = {
    "loss": ("Validation loss", "nats per target token", None),
    "bleu": ("BLEU", "0 to 100", 10.0),
    "source_bits": ("Source bits", "bits per target token", 1.0),
}


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart of a page, drawn by the template parts.html.j2; the legend is (name, style) per curve."""

    title: str
    unit: str
    svg: Markup
    legend: list[tuple[str, str]]


def course_charts(lines: Lines) -> list[Chart]:
    """Charts of one run over the same steps: loss, source bits, BLEU, learning rate, gradient norms, where logged."""
    train, norm = series(lines, Step, "loss"), series(lines, Step, "gradient_norm")
    drawn: list[tuple[str, str, list[Line], dict[str, Any]]] = [
        (
            "Loss",
            "nats per target token",
            [
                Line("train", smoothed(train), "first", faint=train),
                Line("valid", series(lines, Evaluated, "loss"), "second", dots=True),
                Line("valid, another's source", series(lines, Evaluated, "loss_shuffled"), "second dotted"),
            ],
            {},
        ),
        (
            "Source bits",
            "bits per target token; at zero the source is not read",
            [Line("source bits", series(lines, Evaluated, "source_bits"), "first", dots=True)],
            {"at_least": 1},
        ),
        (
            "BLEU",
            "0 to 100",
            [Line("BLEU", series(lines, Evaluated, "bleu"), "third", dots=True)],
            {"at_least": 10},
        ),
        ("Learning rate", "", [Line("rate", series(lines, Step, "learning_rate"), "fourth")], {"at_least": 0}),
        (
            "Gradient norm",
            "before clipping, log scale",
            [Line("norm", smoothed(norm), "fourth", faint=norm)],
            {"log": True},
        ),
        ("Gradient norm by part", "log scale", _norms_by_part(lines), {"log": True}),
    ]
    steps = _steps(lines)
    return [
        chart
        for title, unit, curves, options in drawn
        if (chart := _chart(title, unit, curves, steps=steps, **options))
    ]


def comparison_charts(runs: Mapping[str, Lines], keys: Sequence[str] = tuple(COMPARED)) -> list[Chart]:
    """One chart per figure with one curve per run, over the steps of all; figures that no run has are left out."""
    steps = _steps([line for lines in runs.values() for line in lines])
    charts = []
    for key in keys:
        title, unit, at_least = COMPARED.get(key, (key, "", None))
        curves = [
            Line(name, series(lines, Evaluated, key), STYLES[i % len(STYLES)], dots=True)
            for i, (name, lines) in enumerate(runs.items())
        ]
        if chart := _chart(title, unit, curves, steps=steps, at_least=at_least):
            charts.append(chart)
    return charts


def _norms_by_part(lines: Lines) -> list[Line]:
    """One curve of gradient norms per part of the network."""
    noted = [{**line, **line["gradient_norms"]} for line in lines if isinstance(line.get("gradient_norms"), dict)]
    parts = list(dict.fromkeys(part for line in noted for part in line["gradient_norms"]))
    return [Line(part, smoothed(series(noted, Step, part)), STYLES[i % len(STYLES)]) for i, part in enumerate(parts)]


def _steps(lines: Lines) -> tuple[float, float] | None:
    steps = [float(line["step"]) for line in of(lines, Step, Evaluated) if is_finite(line.get("step"))]
    return (min(steps), max(steps)) if steps else None


def _chart(title: str, unit: str, curves: list[Line], **options: Any) -> Chart | None:
    svg = line_chart(title, curves, **options)
    legend = [(ln.name, ln.style) for ln in curves if ln.points]
    return Chart(title, unit, svg, legend if len(legend) > 1 else []) if svg else None
