"""What if, self-attention, two models side by side and pictures to save: a trace's page in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import sourcewise
from sourcewise.cli import main
from sourcewise.config import GenerationConfig
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.generation.model import Model
from sourcewise.generation.trace import Trace
from sourcewise.reporting.trace import write_trace
from tests.browser import Visit, open_browser, visit_file
from tests.commands import Models
from tests.model.networks import DIMS, VOCABULARY, network

TEXT = "me no ba do ki"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


def made(bridge: str | None = None, name: str = "tiny", **changes: Any) -> Model:
    tokenizer = Tokenizer.train(["ba do ki lu me no one two"] * 3, VOCABULARY)
    settings = GenerationConfig(max_new_tokens=9, min_new_tokens=6)
    return Model(network(bridge, **changes), tokenizer, name, generation=settings)


@pytest.fixture(scope="module")
def text() -> Trace:
    return sourcewise.trace(made(), TEXT, what_if=True, beams=1)


def figures(nodes: Any) -> list[float]:
    return [float(figure.replace("−", "-")) for figure in nodes.locator(".figure").all_inner_texts()]


@pytest.mark.parametrize("width", [390, 1100])
def test_a_part_is_taken_away_and_the_losses_are_pythons(browser: Any, text: Trace, tmp_path: Path, width: int) -> None:
    visit = visit_file(browser, write_trace(text, tmp_path / "t.html"), width=width)
    what_if = visit.page.get_by_role("region", name="What if")
    assert text.what_if is not None
    parts = what_if.get_by_role("button")
    assert [label.split(":")[0] for label in parts.evaluate_all("nodes => nodes.map(n => n.title)")] == [
        f"without {each.part.text}" for each in text.what_if
    ]
    totals = [sum(each.bits) for each in text.what_if]
    assert np.abs(np.array(figures(what_if.get_by_role("group"))) - totals).max() < 0.0501
    assert (
        what_if.locator("[aria-pressed=true]")
        .get_attribute("title")
        .startswith(f"without {text.what_if[int(np.argmax(totals))].part.text}:")
    )
    for each, button in zip(text.what_if, parts.all(), strict=True):
        button.click()
        detail = what_if.locator(".detail")
        assert detail.locator(".said-then").inner_text() == each.output
        assert ("stays the same" in detail.inner_text()) == (each.output == text.output)
        assert np.abs(np.array(figures(detail)) - each.bits).max() < 0.0501
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    visit.check_silent()


def test_stretches_of_frames_are_named(browser: Any, tmp_path: Path) -> None:
    clips = [np.random.default_rng(i).standard_normal((20, DIMS)).astype(np.float32) for i in range(2)]
    traced = sourcewise.trace(made("convolution"), clips, what_if=True, beams=1)
    visit = visit_file(browser, write_trace(traced, tmp_path / "t.html"), width=390)
    parts = visit.page.get_by_role("region", name="What if").get_by_role("button")
    assert parts.count() == len(traced.what_if or []) and parts.first.inner_text().startswith("frames 0–")
    visit.check_silent()


def test_self_attention_lights_up_with_pythons_weights(browser: Any, text: Trace, tmp_path: Path) -> None:
    visit = visit_file(browser, write_trace(text, tmp_path / "t.html"))
    for stack in ("encoder", "decoder"):
        panel = visit.page.locator(f"details.{stack}")
        panel.locator("summary").click()
        weights = text.self_attention[stack]
        chips = panel.locator(".lossy .token")
        choices = chips if stack == "encoder" else panel.locator(".chosen-of .token")
        assert choices.count() == weights.shape[-2] and chips.count() == weights.shape[-1]
        choices.nth(2).click()

        def lit(chips: Any = chips) -> np.ndarray:
            return np.array(chips.evaluate_all("nodes => nodes.map(n => Number(n.dataset.weight))"))

        assert np.abs(lit() - weights.mean((0, 1))[2]).max() <= 1e-5
        panel.get_by_label(f"{stack} layer 2 head 1").click()
        assert np.abs(lit() - weights[1, 0, 2]).max() <= 1e-5
        assert "layer 2, head 1" in panel.locator("[aria-live]").inner_text()
    visit.check_silent()


def test_weights_are_saved_as_pictures(browser: Any, text: Trace, tmp_path: Path) -> None:
    visit = visit_file(browser, write_trace(text, tmp_path / "t.html"))
    visit.page.get_by_label("Layer", exact=True).select_option(index=2)
    for name, ending in (("Save these weights as SVG", "svg"), ("as PNG", "png")):
        with visit.page.expect_download() as begun:
            visit.page.get_by_role("button", name=name, exact=True).click()
        assert begun.value.suggested_filename == f"trace.{ending}"
        begun.value.save_as(tmp_path / f"saved.{ending}")
    tree = ElementTree.parse(tmp_path / "saved.svg").getroot()
    cells = [node for node in tree.iter("{http://www.w3.org/2000/svg}rect") if node.get("fill", "").startswith("rgb(")]
    weights = text.weights(1)
    assert weights is not None and len(cells) == weights.size
    red = np.array([int(cell.get("fill", "")[4:].split(",")[0]) for cell in cells]).reshape(weights.shape)
    assert np.abs(red - 255 * (1 - np.sqrt(weights))).max() <= 1
    said = [node.text for node in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert "layer 2" in str(said[0]) and len(said) == 1 + sum(weights.shape)
    with Image.open(tmp_path / "saved.png") as picture:
        assert picture.size == tuple(2 * round(float(tree.get(side, "0"))) for side in ("width", "height"))
        assert len(set(picture.convert("RGB").getdata())) > 10
    visit.check_silent("blob:")


def test_two_models_stand_side_by_side(browser: Any, text: Trace, tmp_path: Path) -> None:
    other = sourcewise.trace(made(name="other", d_model=32), TEXT, beams=1)
    visit = visit_file(browser, write_trace(text, tmp_path / "t.html", other), width=1280)
    for number, traced in enumerate((text, other)):
        section = visit.page.locator("main > section").nth(number)
        assert section.locator("h2").inner_text() == (traced.output or "(empty output)")
        assert traced.model in section.locator(".aside").first.inner_text()
        tokens = section.locator("[role=option]")
        assert tokens.count() == len(traced.steps)
    left, right = (visit.page.locator("main > section").nth(i).bounding_box() for i in (0, 1))
    assert left["x"] + left["width"] <= right["x"] and abs(left["y"] - right["y"]) < 2
    visit.check_silent()


def test_the_command_traces_two_models_and_asks_what_if(
    here: Path, models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["trace", str(models.text), "ba do", "--beside", str(models.text), "--what-if", "-o", "t.html"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert said.count("without\tbits lost\toutput then") == 2 and said.count("model\t") == 2
    assert main([*words, "--json"]) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert [part["text"] for part in first["what_if"]] == ["ba", "do"] and first["steps"] == second["steps"]


def test_no_text_of_a_part_becomes_markup(browser: Any, text: Trace, tmp_path: Path) -> None:
    evil = '</script><img src=x onerror="alert(1)">'
    assert text.what_if is not None
    parts = [replace(each, part=replace(each.part, text=evil), output=evil) for each in text.what_if]
    visit: Visit = visit_file(browser, write_trace(replace(text, what_if=parts), tmp_path / "t.html"))
    visit.page.get_by_role("region", name="What if").get_by_role("button").nth(1).click()
    assert visit.page.locator("img").count() == 0 and "onerror" in visit.page.locator(".said-then").inner_text()
    visit.check_silent()
