"""The course of a training as charts: over the same steps, with what was measured; and of several runs in one chart."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from typing import Any

from sourcewise.reporting.course import Chart, comparison_charts, course_charts


def lines_of(factor: float = 1.0, **more: Any) -> list[dict[str, Any]]:
    trained = [
        {"kind": "train", "step": s, "loss": factor / s, "learning_rate": 0.1, "gradient_norm": 1.0, **more}
        for s in range(10, 101, 10)
    ]
    evaluated = [{"kind": "evaluation", "step": s, "loss": factor / s, "source_bits": factor} for s in (50, 100)]
    return trained + evaluated


def figures(chart: Chart) -> dict[str, Any]:
    return dict(json.loads(ElementTree.fromstring(str(chart.svg)).attrib["data-chart"]))


def test_every_chart_has_the_same_steps_and_only_what_was_measured() -> None:
    charts = course_charts(lines_of())
    assert [chart.title for chart in charts] == ["Loss", "Source bits", "Learning rate", "Gradient norm"]
    assert {tuple(figures(chart)["steps"]) for chart in charts} == {(10, 100)}
    assert charts[0].legend == [("train", "first"), ("valid", "second")] and charts[1].legend == []
    assert figures(charts[1])["lines"][0]["points"] == [[50, 1], [100, 1]]
    assert course_charts([]) == course_charts([{"kind": "start", "step": 0}]) == []


def test_parts_of_the_network_have_a_curve_each() -> None:
    chart = course_charts(lines_of(gradient_norms={"encoder": 0.5, "decoder": 2.0}))[-1]
    assert chart.title == "Gradient norm by part" and figures(chart)["log"]
    assert [name for name, _ in chart.legend] == ["encoder", "decoder"]
    assert {point[1] for point in figures(chart)["lines"][1]["points"]} == {2.0}


def test_runs_are_compared_in_one_chart_a_figure() -> None:
    short = [line for line in lines_of(2.0) if line["step"] <= 50]
    charts = comparison_charts({"whole": lines_of(), "short": short, "nothing yet": []})
    assert [chart.title for chart in charts] == ["Validation loss", "Source bits"]
    assert charts[1].legend == [("whole", "first"), ("short", "second")]
    assert [line["points"][-1] for line in figures(charts[1])["lines"]] == [[100, 1], [50, 2]]
    assert {tuple(figures(chart)["steps"]) for chart in charts} == {(10, 100)}
    assert [chart.title for chart in comparison_charts({"whole": lines_of()}, ["source_bits"])] == ["Source bits"]
