"""Curves of a run, read from its log lines and drawn as training_curves.png."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sourcewise.runtime.files import write_atomically
from sourcewise.training.events import Evaluated, Event, Step, of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours that are distinct in print, on screens and for colour-blind readers (Okabe & Ito 2008).
BLUE, ORANGE, GREEN, PURPLE, INK, GRID = "#0072b2", "#d55e00", "#009e73", "#8e4f86", "#2b2b2b", "#e3e3e3"

# Of the picture, fixed: to measure all texts first takes longer than to draw them.
MARGINS = {"left": 0.07, "right": 0.93, "bottom": 0.08, "top": 0.95, "wspace": 0.2, "hspace": 0.22}


def series(lines: Sequence[Mapping[str, Any]], event: type[Event], key: str) -> list[tuple[float, float]]:
    """(step, value) of all lines of an event with a finite value, sorted by step.

    A resumed run repeats the steps after its last state; the later line counts.
    """
    points: dict[float, float] = {}
    for line in of(lines, event):
        step, value = line.get("step"), line.get(key)
        if is_finite(step) and is_finite(value):
            points[float(step)] = float(value)  # type: ignore[arg-type]
    return sorted(points.items())


def smoothed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A centred moving average over a twenty-fifth of the points on each side, fewer at the ends; for drawing only.

    Centred because a trailing average lags: it would draw a falling training loss above the validation loss.
    """
    reach = len(points) // 25
    sums = [0.0]
    for _, value in points:
        sums.append(sums[-1] + value)
    out = []
    for i, (step, _) in enumerate(points):
        side = min(reach, i, len(points) - 1 - i)
        out.append((step, (sums[i + side + 1] - sums[i - side]) / (2 * side + 1)))
    return out


def training_curves(metrics_lines: Sequence[Mapping[str, Any]], path: Path | str) -> None:
    """Draw loss, BLEU, source bits, and learning rate with gradient norm over steps into a PNG.

    `metrics_lines` are the lines of metrics.jsonl. Panels without values say so. The file is written atomically.
    Raises RequestError where it cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: Any = {  # keys of matplotlib's rcParams
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#8a8a8a",
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "axes.titlesize": 10,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "legend.frameon": False,
    }
    with rc_context(style):
        figure = Figure(figsize=(9, 6))
        FigureCanvasAgg(figure)  # no window, no global state, whatever backend is set
        axes = figure.subplots(2, 2, gridspec_kw=MARGINS)
        _loss(axes[0][0], metrics_lines)
        _one(axes[0][1], "BLEU", series(metrics_lines, Evaluated, "bleu"), GREEN, 10)
        _one(axes[1][0], "Source bits per target token", series(metrics_lines, Evaluated, "source_bits"), BLUE, 1)
        _rate_and_gradient(axes[1][1], metrics_lines)
        for axis in axes[1]:
            axis.set_xlabel("step")
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=160)
    write_atomically(Path(path), drawn.getvalue())


def _loss(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    train, valid = series(lines, Step, "loss"), series(lines, Evaluated, "loss")
    shuffled = series(lines, Evaluated, "loss_shuffled")
    _frame(axes, "Loss (nats per target token)", bool(train or valid))
    if train:
        axes.plot(*_columns(train), color=BLUE, alpha=0.25, linewidth=0.8)
        axes.plot(*_columns(smoothed(train)), color=BLUE, linewidth=1.6, label="train")
    if valid:
        axes.plot(*_columns(valid), color=ORANGE, linewidth=1.6, marker="o", markersize=3, label="valid")
    if shuffled:
        label = "valid, another's source"
        axes.plot(*_columns(shuffled), color=ORANGE, linewidth=1, linestyle=":", label=label)
    if train or valid:
        axes.legend()


def _one(axes: Axes, title: str, points: list[tuple[float, float]], color: str, at_least: float) -> None:
    _frame(axes, title, bool(points))
    if points:
        values = [value for _, value in points]
        axes.plot(*_columns(points), color=color, linewidth=1.6, marker="o", markersize=3)
        # From zero (nothing learned) up to at least `at_least`, so that values near zero look near zero.
        axes.set_ylim(min(0.0, 1.05 * min(values)), max(at_least, 1.05 * max(values)))


def _rate_and_gradient(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    from matplotlib.ticker import LogLocator

    rate = series(lines, Step, "learning_rate")
    norm = [(step, value) for step, value in series(lines, Step, "gradient_norm") if value > 0]
    _frame(axes, "Learning rate and gradient norm", bool(rate or norm))
    if rate:
        axes.plot(*_columns(rate), color=PURPLE, linewidth=1.6)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("learning rate", color=PURPLE)
        axes.yaxis.set_major_formatter("{x:g}")
    if norm:
        right = axes.twinx()
        right.set_yscale("log")
        right.spines["right"].set_visible(True)
        right.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        right.yaxis.set_major_formatter("{x:g}")
        right.yaxis.set_minor_formatter("{x:g}")
        right.plot(*_columns(norm), color=INK, linewidth=0.6, alpha=0.25)
        right.plot(*_columns(smoothed(norm)), color=INK, linewidth=1.2)
        right.set_ylabel("gradient norm (log)")


def _frame(axes: Axes, title: str, has_points: bool) -> None:
    axes.set_title(title)
    axes.grid(True, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    if not has_points:
        axes.text(0.5, 0.5, "not measured yet", transform=axes.transAxes, ha="center", va="center", color="#8a8a8a")
        axes.set_xticks([])
        axes.set_yticks([])


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [step for step, _ in points], [value for _, value in points]


def is_finite(value: Any) -> bool:
    """Whether a value of a log line can be drawn: a number, neither NaN nor infinite."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
