"""report.html in a real browser: silent, from a file, zoomed, and its traces lit with Python's own weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sourcewise
from sourcewise.evaluation.shown import read_shown
from sourcewise.reporting.report import write_report
from tests.browser import Visit, open_browser, visit_file
from tests.training.recipes import feature_recipe, recipe

pytestmark = pytest.mark.pages

SMALL = {"train__steps": 40, "train__evaluate_every": 10, "train__log_every": 1}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sourcewise.train(recipe(tmp_path_factory.mktemp("text"), **SMALL)).folder


def steps_shown(visit: Visit, chart: int) -> list[str]:
    """The labels of a chart's steps: those at its foot."""
    below = "nodes => nodes.filter(n => n.y.baseVal[0].value > 215).map(n => n.textContent)"
    return list(visit.page.locator("svg[data-chart]").nth(chart).locator("text").evaluate_all(below))


def figures(visit: Visit, chart: int) -> str:
    return str(visit.page.locator("svg[data-chart] + output").nth(chart).inner_text())


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1100, "light")])
def test_it_opens_from_a_file_and_asks_for_nothing(browser: Any, run: Path, width: int, scheme: str) -> None:
    visit = visit_file(browser, run / "report.html", width=width, scheme=scheme)
    wide = visit.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide[0] <= wide[1]
    assert visit.page.locator("svg[data-chart]").count() == 6
    visit.check_silent()


def test_a_stretch_is_zoomed_into_in_all_charts_and_left_again(browser: Any, run: Path) -> None:
    visit = visit_file(browser, run / "report.html")
    whole = steps_shown(visit, 0)
    back = visit.page.get_by_role("button", name="The whole course")
    assert not back.is_visible()
    chart = visit.page.locator("svg[data-chart]").first
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    middle = box["y"] + box["height"] / 2

    def at(step: float) -> float:  # of 1 to 40, in a picture of 440 with margins of 46 and 10
        return float(box["x"] + box["width"] * (46 + 384 * (step - 1) / 39) / 440)

    visit.page.mouse.move(at(20), middle)
    visit.page.mouse.down()
    visit.page.mouse.move(at(30), middle, steps=3)
    assert chart.locator(".band").get_attribute("hidden") is None
    visit.page.mouse.up()
    assert back.is_visible() and chart.locator(".band").get_attribute("hidden") == ""
    for each in (0, 3):
        seen = [int(text) for text in steps_shown(visit, each)]
        assert seen != whole and len(seen) >= 2 and all(19 <= step <= 31 for step in seen)
    visit.page.mouse.dblclick(at(10), middle)
    assert steps_shown(visit, 0) == whole and not back.is_visible()
    visit.check_silent()


def test_the_keyboard_tells_figures_and_zooms(browser: Any, run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    trained = {line["step"]: line for line in lines if line["kind"] == "train"}
    visit = visit_file(browser, run / "report.html")
    visit.page.locator("svg[data-chart]").nth(3).focus()
    visit.page.keyboard.press("End")
    visit.page.keyboard.press("ArrowLeft")
    said = figures(visit, 3)
    assert said.startswith("step 39: rate ")
    assert float(said.split()[-1]) == pytest.approx(trained[39]["learning_rate"], rel=5e-3)
    assert figures(visit, 0).startswith("step 39: ") and "(at 40)" in figures(visit, 0)  # an evaluation is near
    whole = steps_shown(visit, 0)
    visit.page.keyboard.press("+")
    visit.page.keyboard.press("+")
    assert all(int(step) > 25 for step in steps_shown(visit, 0)) and steps_shown(visit, 0) != whole
    visit.page.keyboard.press("-")
    visit.page.keyboard.press("Escape")
    assert steps_shown(visit, 0) == whole
    visit.page.keyboard.press("Home")
    assert figures(visit, 1).startswith("step 1: ")
    visit.check_silent()


def test_a_token_in_a_reports_trace_lights_pythons_weights(browser: Any, run: Path) -> None:
    """Those of `sourcewise.trace` on the run's own validation set, with its own search."""
    shown = read_shown(run)
    visit = visit_file(browser, run / "report.html")
    visit.page.locator("[data-trace]").nth(1).click()
    assert visit.page.get_by_role("tab", selected=True).get_attribute("id") == "tab-1"
    texts = [line.split("\t")[0] for line in (run.parent.parent / "valid.tsv").read_text().splitlines()[1:]]
    place = texts.index(shown[1].trace["source"]["text"])
    traced = sourcewise.trace(run, texts, place)
    assert traced.output == shown[1].trace["output"]["text"]
    t = min(2, len(traced.steps) - 1)
    visit.page.locator("#trace [role=option]").nth(t).click()
    lit = visit.page.locator("#trace .slot").evaluate_all("nodes => nodes.map(n => Number(n.dataset.weight))")
    assert np.abs(np.array(lit) - traced.weights()[t]).max() <= 1e-5  # type: ignore[index]
    bits = [step.bits for step in traced.steps]
    told = visit.page.locator(".token-samples li").nth(1).locator(".output .figure").all_inner_texts()
    assert np.allclose([float(text.replace("−", "-")) for text in told], bits, atol=0.0501)
    visit.check_silent()


def test_tabs_are_walked_through_with_arrow_keys(browser: Any, run: Path) -> None:
    visit = visit_file(browser, run / "report.html")
    visit.page.get_by_role("tab", selected=True).focus()
    visit.page.keyboard.press("ArrowRight")
    assert visit.page.get_by_role("tab", selected=True).get_attribute("id") == "tab-1"
    assert visit.page.evaluate("document.activeElement.id") == "tab-1"
    visit.page.keyboard.press("Home")
    assert visit.page.get_by_role("tab", selected=True).get_attribute("id") == "tab-0"
    visit.check_silent()


def test_features_are_a_picture_that_can_be_turned_over(browser: Any, tmp_path: Path) -> None:
    folder = sourcewise.train(feature_recipe(tmp_path, train__steps=4, train__evaluate_every=4)).folder
    visit = visit_file(browser, folder / "report.html")
    assert "frames of 8 values" in visit.page.locator(".token-samples li").first.inner_text()
    turn = visit.page.locator(".axis button")
    assert turn.inner_text().startswith("value 0 at the top")
    turn.click()
    assert turn.inner_text().startswith("value 0 at the bottom")
    assert visit.page.locator(".picture").evaluate("node => getComputedStyle(node).transform") != "none"
    visit.check_silent()


def test_while_it_trains_the_page_can_follow(browser: Any, run: Path, tmp_path: Path) -> None:
    assert visit_file(browser, run / "report.html").page.locator("#follow").count() == 0  # it is over
    for name in ("recipe.yaml", "metrics.jsonl"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    visit = visit_file(browser, write_report(tmp_path))
    visit.page.locator("#follow").check()
    visit.page.reload()
    assert visit.page.locator("#follow").is_checked()
    assert "No traces are here" in visit.page.locator("main").inner_text()
    visit.check_silent(tmp_path.as_uri())
