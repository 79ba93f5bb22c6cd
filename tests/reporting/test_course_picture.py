"""The curves as an SVG file: it is well-formed, holds every curve, and comes where matplotlib is not installed."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from sourcewise.reporting import course_picture
from sourcewise.reporting.charts import STYLES
from sourcewise.reporting.course_picture import COLOURS, draw_curves, write_course
from tests.browser import open_browser, visit_file
from tests.reporting.test_curves import LINES

SVG = "{http://www.w3.org/2000/svg}"
ODD = [
    {
        "kind": "train",
        "step": step,
        "loss": 3.0 / step,
        "learning_rate": 1e-3,
        "gradient_norm": 1.0,
        "gradient_norms": {"encoder <&>": 1.0 / step, "decoder": 2.0, "c": 1.0, "d": 3.0, "e": 4.0, "f": 5.0},
    }
    for step in range(1, 900)
]
UNMEASURED = [{"kind": "train", "step": 1, "loss": math.nan}]


def classes(path: Path) -> list[str]:
    return [each.get("class", "") for each in ET.parse(path).iter(f"{SVG}polyline")]


@pytest.mark.parametrize(
    "lines", [LINES, LINES[:1], LINES[2:3], [], ODD, [{"kind": "train", "step": 1, "loss": math.nan}]]
)
def test_a_well_formed_picture_comes_of_whatever_was_measured(tmp_path: Path, lines: list[dict]) -> None:
    write_course(lines, tmp_path / "x.svg")
    assert ET.parse(tmp_path / "x.svg").getroot().tag == f"{SVG}svg"
    drawn = any(line.get("loss") and math.isfinite(line["loss"]) for line in lines)
    assert bool(classes(tmp_path / "x.svg")) == drawn


def test_every_curve_is_in_it_with_its_name(tmp_path: Path) -> None:
    write_course([*LINES, *ODD], tmp_path / "x.svg")
    text = (tmp_path / "x.svg").read_text(encoding="utf-8")
    words = ("Loss", "train", "valid", "Source bits", "BLEU", "Learning rate", "Gradient norm", "encoder &lt;&amp;&gt;")
    for word in words:
        assert f">{word}</text>" in text, word
    assert {"first", "second", "second dotted", "third", "fourth", "first faint"} <= set(classes(tmp_path / "x.svg"))
    assert set(COLOURS) == set(STYLES)


def test_it_is_drawn_where_matplotlib_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_curves(LINES, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["training_curves.png"]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(course_picture, "find_spec", lambda name: None)
    draw_curves(LINES, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["training_curves.png", "training_curves.svg"]
    assert "pip install 'sourcewise[pictures]'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_browser_shows_it(tmp_path: Path) -> None:
    write_course([*LINES, *ODD], tmp_path / "x.svg")
    with open_browser() as browser:
        visit = visit_file(browser, tmp_path / "x.svg", width=1000)
        visit.check_silent()
        heights = "[...document.querySelectorAll('g > svg')].map(each => each.getBoundingClientRect().height)"
        boxes = visit.page.evaluate(heights)
        assert len(boxes) == 6 and all(200 < height <= 230 for height in boxes)
