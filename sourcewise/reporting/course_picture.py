"""The course of a training as one SVG file, made of the charts of its report: a picture without a library."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from markupsafe import Markup

from sourcewise.reporting.charts import HEIGHT, LEFT, WIDTH
from sourcewise.reporting.course import Chart, Lines, course_charts
from sourcewise.reporting.curves import training_curves
from sourcewise.runtime.files import write_atomically

COLUMNS = 2
ABOVE, GAP = 46, 16  # of a chart: room for its title and legend; between charts
KEY = 26  # width of a legend's stroke and what is around it
LETTER = 6.2  # width of a letter of a legend, about
COLOURS = {"first": "#0072b2", "second": "#d55e00", "third": "#009e73", "fourth": "#8e4f86", "fifth": "#8a6a00"}
COLOURS |= {"sixth": "#a02c5a"}

STYLE = """
text { font: 11.5px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #5f5f5a; }
.title { font-size: 14px; font-weight: 600; fill: #1d1d1b; }
.grid { stroke: #deded9; }
polyline, .key { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.faint { stroke-width: 0.8; opacity: 0.35; }
.dotted { stroke-dasharray: 2 4; }
""" + "".join(
    f"polyline.{name}, line.{name} {{ stroke: {colour}; }} circle.{name} {{ fill: {colour}; }}\n"
    for name, colour in COLOURS.items()
)


def draw_curves(lines: Lines, folder: Path) -> None:
    """Draw training_curves.png into a run's folder; where matplotlib is not installed, training_curves.svg.

    Raises RequestError where it cannot be written.
    """
    if find_spec("matplotlib") is not None:
        training_curves(lines, folder / "training_curves.png")
        return
    drawn = folder / "training_curves.svg"
    write_course(lines, drawn)
    print(f"{drawn}: a picture of the curves; as PNG: pip install 'sourcewise[pictures]'", file=sys.stderr)


def write_course(lines: Lines, path: Path) -> None:
    """Draw loss, source bits, BLEU, learning rate and gradient norms of a metrics.jsonl into an SVG file.

    Raises RequestError where it cannot be written.
    """
    write_atomically(path, picture(course_charts(lines)))


def picture(charts: Sequence[Chart]) -> str:
    """Charts in two columns, as the text of an SVG file."""
    rows = max(1, -(-len(charts) // COLUMNS))
    width, height = COLUMNS * (WIDTH + GAP) + GAP, rows * (ABOVE + HEIGHT + GAP) + GAP
    cells = Markup("\n").join(_cell(chart, place) for place, chart in enumerate(charts)) or _nothing()
    whole = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" width="{0}" height="{1}" viewBox="0 0 {0} {1}">\n<style>{2}</style>\n'
        '<rect width="{0}" height="{1}" fill="#ffffff"/>\n{3}\n</svg>\n'
    )
    return str(whole.format(width, height, Markup(STYLE), cells))


def _cell(chart: Chart, place: int) -> Markup:
    x = GAP + (place % COLUMNS) * (WIDTH + GAP)
    y = GAP + (place // COLUMNS) * (ABOVE + HEIGHT + GAP)
    title = Markup('<text class="title" x="{}" y="14">{}</text>').format(LEFT, chart.title)
    if chart.unit:
        title += Markup('<text x="{}" y="14" text-anchor="end">{}</text>').format(
            WIDTH - 10, chart.unit.partition(";")[0]
        )
    placed = f'<svg y="{ABOVE}" width="{WIDTH}" height="{HEIGHT}" '
    svg = Markup(str(chart.svg).replace("<svg ", placed, 1))
    return Markup('<g transform="translate({} {})">{}{}{}</g>').format(x, y, title, _legend(chart), svg)


def _legend(chart: Chart) -> Markup:
    parts, x = [], float(LEFT)
    for name, style in chart.legend:
        parts.append(Markup('<line class="key {}" x1="{:.0f}" x2="{:.0f}" y1="32" y2="32"/>').format(style, x, x + 16))
        parts.append(Markup('<text x="{:.0f}" y="36">{}</text>').format(x + 21, name))
        x += KEY + LETTER * len(name) + 8
    return Markup("").join(parts)


def _nothing() -> Markup:
    return Markup('<text x="{}" y="40">nothing was measured yet</text>').format(GAP)
