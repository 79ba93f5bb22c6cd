"""Charts as inline SVG without a library: they scale, and follow the page's light or dark colours.

Colours come from the page's style sheet by class. Every chart carries its data for the page's script (`data-chart`),
which zooms, and a summary in words for screen readers.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 440, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 26
MOST_POINTS = 300  # drawn points of a curve
MOST_FIGURES = 1500  # points of a curve for zooming
MOST_BINS = 24
_BAR = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>')
_PAIR = Markup('<circle class="first pair" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"><title>{}</title></circle>')
STYLES = ("first", "second", "third", "fourth", "fifth", "sixth")  # classes of the style sheet, in order


@dataclass(slots=True)
class Line:
    """One curve: name in the legend, (step, value) points, class in the style sheet."""

    name: str
    points: Points
    style: str = "first"
    dots: bool = False
    faint: Points = field(default_factory=list)  # the unsmoothed curve, drawn thin behind


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    log: bool = False,
    at_least: float | None = None,
    steps: tuple[float, float] | None = None,
) -> Markup:
    """Curves over steps as one SVG with axes; an empty string where there is nothing to draw.

    With `at_least` the value axis reaches from zero to at least that value, so that values near zero look near zero.
    `steps` are the ends of the step axis (default: those of the curves).
    """
    figured, lines = _thinned(lines, MOST_FIGURES), _thinned(lines, MOST_POINTS)
    values = [v for ln in lines for _, v in (*ln.points, *ln.faint) if not log or v > 0]
    if not values:
        return Markup("")
    if at_least is not None:
        values += [0.0, at_least]
    own = [s for ln in lines for s, _ in ln.points]
    ticks = log_ticks(min(values), max(values)) if log else nice_ticks(min(values), max(values))
    frame = _Frame(steps or (min(own), max(own)), (min(ticks[0], *values), max(ticks[-1], *values)), log)
    parts = [_axes(frame, ticks)]
    for line in lines:
        if line.faint:
            parts.append(_path(frame, line.faint, f"{line.style} faint"))
        parts.append(_path(frame, line.points, line.style))
        for step, value in line.points if line.dots or len(line.points) == 1 else ():
            dot = Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="2.5"/>')
            parts.append(dot.format(line.style, frame.x(step), frame.y(value)))
    figures = {"steps": frame.steps, "log": log, "least": at_least, "lines": [_figures(line) for line in figured]}
    return _svg(title, _summary(title, lines), Markup("").join(parts), figures)


def _thinned(lines: Sequence[Line], most: int) -> list[Line]:
    there = (ln for ln in lines if ln.points)
    return [Line(ln.name, thinned(ln.points, most), ln.style, ln.dots, thinned(ln.faint, most)) for ln in there]


def _figures(line: Line) -> dict[str, object]:
    """The data of a curve for the page's script."""
    points, faint = ([[s, _shortened(v)] for s, v in some] for some in (line.points, line.faint))
    return {"name": line.name, "style": line.style, "dots": line.dots, "points": points, "faint": faint}


def length_chart(title: str, references: Sequence[int], outputs: Sequence[int], unit: str = "words") -> Markup:
    """Histograms of the lengths of references and outputs, side by side."""
    if not references and not outputs:
        return Markup("")
    longest = max((*references, *outputs))
    width = max(1, math.ceil((longest + 1) / MOST_BINS))
    bins = longest // width + 1
    counted = [Counter(length // width for length in lengths) for lengths in (references, outputs)]
    ticks = nice_ticks(0, max(max(c.values(), default=0) for c in counted))
    frame = _Frame((0, bins), (0, ticks[-1]))
    parts = [_axes(frame, ticks, x_labels=False)]
    for b in range(bins):
        name = str(b) if width == 1 else f"{b * width} to {b * width + width - 1}"
        for side, (counts, style) in enumerate(zip(counted, ("reference", "first"), strict=True)):
            left, right = frame.x(b + 0.1 + 0.4 * side), frame.x(b + 0.5 + 0.4 * side)
            top, tooltip = frame.y(counts[b]), f"{name} {unit}: {counted[0][b]} references, {counted[1][b]} outputs"
            parts.append(_BAR.format(style, left, top, max(0.5, right - left), frame.y(0) - top, tooltip))
        if b % max(1, math.ceil(bins / 8)) == 0:
            parts.append(_label(frame.x(b + 0.5), HEIGHT - 8, str(b * width), "middle"))
    means = [sum(lengths) / len(lengths) if lengths else 0.0 for lengths in (references, outputs)]
    summary = f"{title}: references have {means[0]:.1f} {unit} on average, outputs {means[1]:.1f}."
    return _svg(title, summary, Markup("").join(parts), None)


def pair_chart(title: str, references: Sequence[int], outputs: Sequence[int], unit: str = "words") -> Markup:
    """Output length against reference length: one dot per pair, sized by its number of examples, and the diagonal."""
    if not references:
        return Markup("")
    ticks = nice_ticks(0, max((*references, *outputs, 5)))
    end = 1.05 * ticks[-1]
    frame = _Frame((0, end), (0, end))
    parts = [_axes(frame, ticks), _path(frame, [(0, 0), (end, end)], "reference dotted")]
    counts = Counter(zip(references, outputs, strict=True))
    most = max(counts.values())
    for (reference, output), count in sorted(counts.items()):
        tooltip = f"references of {reference} {unit}, outputs of {output}: {count}"
        radius = 2 + 6 * math.sqrt(count / most)
        parts.append(_PAIR.format(frame.x(reference), frame.y(output), radius, tooltip))
    same = sum(count for (reference, output), count in counts.items() if reference == output)
    summary = f"{title}: {same} of {len(references)} outputs are as long as their reference."
    return _svg(title, summary, Markup("").join(parts), None)


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers (1, 2, 2.5, 5 × a power of ten) from at or below `low` to at or above `high`."""
    if not high > low:
        low, high = (low - 1, low + 1) if low else (0.0, 1.0)
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten around positive values."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, (last - first) // 5)
    return [10.0**k for k in range(first, max(last, first + 1) + 1, every)]


def thinned(points: Points, most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """At most `most` points: neighbours are averaged, the last point is kept."""
    if len(points) <= most:
        return list(points)
    *others, last = points
    size = math.ceil(len(others) / (most - 1))
    groups = [others[i : i + size] for i in range(0, len(others), size)]
    return [*((g[-1][0], sum(v for _, v in g) / len(g)) for g in groups), last]


def tick_text(value: float) -> str:
    """The label of a tick: 0.0005, 2.5, 1,000, 3e-5."""
    if value and (abs(value) < 1e-4 or abs(value) >= 1e6):
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:,.6g}" if abs(value) < 1000 else f"{value:,.0f}"


@dataclass(slots=True)
class _Frame:
    """Maps steps and values to coordinates of the picture."""

    steps: tuple[float, float]
    values: tuple[float, float]
    log: bool = False

    def x(self, step: float) -> float:
        low, high = self.steps
        return LEFT + (WIDTH - LEFT - RIGHT) * ((step - low) / (high - low) if high > low else 0.5)

    def y(self, value: float) -> float:
        low, high = self.values
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, low))
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * ((value - low) / (high - low) if high > low else 0.5)


def _svg(title: str, summary: str, inside: Markup, figures: dict[str, object] | None) -> Markup:
    if figures:
        inside = Markup('<g class="drawn">{}</g>').format(inside)
        figures["frame"] = [LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM]
    packed = json.dumps(figures, separators=(",", ":"))
    data = Markup(' tabindex="0" data-chart="{}"').format(packed) if figures else Markup("")
    whole = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}"{}>{}</svg>')
    return whole.format(WIDTH, HEIGHT, summary or title, data, inside)


def _axes(frame: _Frame, ticks: Sequence[float], x_labels: bool = True) -> Markup:
    parts = []
    for tick in ticks:
        y = frame.y(tick)
        grid = Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>')
        parts.append(grid.format(LEFT, WIDTH - RIGHT, y, y))
        parts.append(_label(LEFT - 6, y + 4, tick_text(tick), "end"))
    if x_labels:
        low, high = frame.steps
        wholes = [t for t in nice_ticks(low, high, 4) if t == round(t)]  # steps are whole numbers
        for tick in [t for t in wholes if low <= t <= high] if high > low else [low]:
            parts.append(_label(frame.x(tick), HEIGHT - 8, tick_text(tick), "end" if tick == high else "middle"))
    return Markup("").join(parts)


def _label(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


def _path(frame: _Frame, points: Points, style: str) -> Markup:
    drawn = " ".join(f"{frame.x(s):.1f},{frame.y(v):.1f}" for s, v in points)
    return Markup('<polyline class="{}" points="{}"/>').format(style, drawn)


def _summary(title: str, lines: Sequence[Line]) -> str:
    """Summary of the chart in a sentence."""
    ends = [f"{ln.name} from {_shortened(ln.points[0][1]):g} to {_shortened(ln.points[-1][1]):g}" for ln in lines]
    last = max(ln.points[-1][0] for ln in lines)
    return f"{title} over steps, to step {last:,.0f}: {'; '.join(ends)}."


def _shortened(value: float) -> float:
    return float(f"{value:.4g}")
