"""Charts: they are XML, stay in their frame, and say in words and figures what they draw."""

import json
import math
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sourcewise.reporting.charts import (
    HEIGHT,
    WIDTH,
    Line,
    length_chart,
    line_chart,
    log_ticks,
    nice_ticks,
    pair_chart,
    thinned,
    tick_text,
)

values = st.floats(-1e6, 1e6).map(lambda v: round(v, 6))


def points_of(svg, tag="polyline"):
    """Every drawn (x, y)."""
    return [
        tuple(map(float, pair.split(",")))
        for line in ElementTree.fromstring(str(svg)).iter(tag)
        for pair in line.attrib["points"].split()
    ]


@settings(max_examples=100, deadline=None)
@given(values, values)
def test_ticks_are_even_and_embrace_the_values(low, high):
    low, high = min(low, high), max(low, high)
    ticks = nice_ticks(low, high)
    slack = 1e-6 * (ticks[-1] - ticks[0])
    assert ticks[0] <= low + slack and ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= 8
    steps = [b - a for a, b in pairwise(ticks)]
    assert max(steps) == pytest.approx(min(steps))


@given(st.floats(1e-9, 1e9), st.floats(1e-9, 1e9))
def test_log_ticks_embrace_the_values(low, high):
    low, high = min(low, high), max(low, high)
    ticks = log_ticks(low, high)
    assert ticks[0] <= low * 1.0001 and len(ticks) >= 2


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.0005, "0.0005"), (3e-5, "3e-5"), (2.5, "2.5"), (1000, "1,000"), (2.5e6, "2.5e6")]
)
def test_tick_text(value, text):
    assert tick_text(value) == text


def test_a_falling_loss_falls_from_left_to_right():
    svg = line_chart("Loss", [Line("train", [(0, 2.0), (50, 1.0), (100, 0.5)])])
    drawn = points_of(svg)
    assert [x for x, _ in drawn] == sorted(x for x, _ in drawn)
    assert [y for _, y in drawn] == sorted(y for _, y in drawn)  # y grows downwards
    root = ElementTree.fromstring(str(svg))
    assert root.attrib["aria-label"] == "Loss over steps, to step 100: train from 2 to 0.5."
    figures = json.loads(root.attrib["data-chart"])
    assert figures["lines"][0]["name"] == "train" and figures["lines"][0]["points"] == [[0, 2], [50, 1], [100, 0.5]]
    assert figures["steps"] == [0, 100]


def test_a_figure_near_zero_looks_near_zero():
    svg = line_chart("Source bits", [Line("bits", [(0, 0.02), (100, 0.02)])], at_least=1)
    assert all(y > 0.85 * (HEIGHT - 26) for _, y in points_of(svg))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), values), min_size=1, max_size=30), st.booleans())
def test_every_point_is_inside_the_picture(points, log):
    svg = line_chart("x", [Line("a", sorted(points), dots=True)], log=log)
    if svg:
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points_of(svg))


def test_nothing_to_draw_is_an_empty_string():
    assert line_chart("x", [Line("a", [])]) == ""
    assert line_chart("x", [Line("a", [(1, 0.0)])], log=True) == ""
    assert length_chart("x", [], []) == ""


def test_names_are_escaped():
    svg = str(line_chart('<b>"x"', [Line("</svg><script>", [(0, 1.0), (1, 2.0)])]))
    assert "<script>" not in svg and "<b>" not in svg
    assert json.loads(ElementTree.fromstring(svg).attrib["data-chart"])["lines"][0]["name"] == "</svg><script>"


def test_length_bars_are_as_high_as_their_counts():
    root = ElementTree.fromstring(str(length_chart("Lengths", [2, 2, 2, 2, 3], [2, 2, 5, 5, 5])))
    bars = list(root.iter("rect"))
    titles = [bar.find("title").text for bar in bars]
    heights = {title: float(bar.attrib["height"]) for bar, title in zip(bars[::2], titles[::2], strict=True)}
    assert heights["2 words: 4 references, 2 outputs"] == pytest.approx(
        4 * heights["3 words: 1 references, 0 outputs"], rel=0.02
    )
    assert "outputs 3.8" in root.attrib["aria-label"]


def test_long_texts_are_binned_without_losing_any():
    root = ElementTree.fromstring(str(length_chart("Lengths", list(range(500)), [499])))
    titles = [t.text for t in root.iter("title")][::2]
    assert len(titles) <= 24
    assert sum(int(t.split(": ")[1].split(" ")[0]) for t in titles) == 500


def test_pairs_of_lengths_lie_on_the_line_where_they_are_equal():
    root = ElementTree.fromstring(str(pair_chart("Lengths", [4, 4, 9], [4, 4, 2])))
    same, other = list(root.iter("circle"))
    (line,) = ([tuple(map(float, p.split(","))) for p in ln.attrib["points"].split()] for ln in root.iter("polyline"))
    (x1, y1), (x2, y2) = line
    on_it = y1 + (y2 - y1) * (float(same.attrib["cx"]) - x1) / (x2 - x1)
    assert float(same.attrib["cy"]) == pytest.approx(on_it, abs=0.1)
    assert float(same.attrib["r"]) > float(other.attrib["r"]) and "outputs of 2: 1" in other.find("title").text
    assert "2 of 3 outputs are as long" in root.attrib["aria-label"]
    assert pair_chart("Lengths", [], []) == ""


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=2000), st.integers(2, 300))
def test_thinning_keeps_the_range_the_end_and_the_limit(given_values, most):
    points = [(float(i), v) for i, v in enumerate(given_values)]
    found = thinned(points, most)
    assert len(found) <= most
    assert found[-1] == points[-1]
    assert all(min(given_values) - 1e-9 <= v <= max(given_values) + 1e-9 for _, v in found)
    assert [s for s, _ in found] == sorted({s for s, _ in found})
    assert math.isfinite(sum(v for _, v in found))
