"""A trace as a page, in a real browser, and in the terminal: the right source lights up, with Python's own weights."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sourcewise
from sourcewise.cli import main
from sourcewise.config import GenerationConfig
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError
from sourcewise.generation.model import Model
from sourcewise.generation.trace import Slot, Trace, slot_name, visible
from sourcewise.reporting import trace as page_of_a_trace
from sourcewise.reporting.terminal_trace import print_trace, read_from, strip
from sourcewise.reporting.trace import write_trace
from tests.browser import Visit, open_browser, visit_file
from tests.commands import Models
from tests.model.networks import DIMS, VOCABULARY, network

EVIL = '</script><img src=x onerror="alert(1)"><!--<script>\u2028&amp;'


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["ba do ki lu me no one two"] * 3, VOCABULARY)


def trace_of(tokenizer: Tokenizer, source: Any, bridge: str | None = None, **options: Any) -> Trace:
    settings = GenerationConfig(max_new_tokens=9, min_new_tokens=6)
    return sourcewise.trace(Model(network(bridge), tokenizer, "tiny", generation=settings), source, **options)


@pytest.fixture(scope="module")
def text(tokenizer: Tokenizer) -> Trace:
    return trace_of(tokenizer, ["me no ba do ki", "lu lu"], beams=3)


@pytest.fixture(scope="module")
def features(tokenizer: Tokenizer) -> Trace:
    clips = [np.random.default_rng(i).standard_normal((20, DIMS)).astype(np.float32) for i in range(2)]
    return trace_of(tokenizer, clips, "convolution", beams=1)


@pytest.fixture(scope="module")
def evil(text: Trace) -> Trace:
    slots = [Slot("token", f" {EVIL}") for _ in text.slots]
    steps = [replace(s, text=EVIL, likeliest=[replace(c, text=EVIL) for c in s.likeliest]) for s in text.steps]
    texts = [[EVIL] * len(step) for step in text.beam_texts]
    return replace(
        text, slots=slots, steps=steps, beam_texts=texts, **dict.fromkeys(("model", "source", "output"), EVIL)
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


def lit(visit: Visit) -> list[float]:
    """The weights that the slots of the source show."""
    return [float(w) for w in visit.page.eval_on_selector_all(".slot", "nodes => nodes.map(n => n.dataset.weight)")]


def selected(visit: Visit) -> int:
    marks = visit.page.eval_on_selector_all("[role=option]", "nodes => nodes.map(n => n.getAttribute('aria-selected'))")
    assert marks.count("true") == 1
    return int(marks.index("true"))


def test_a_click_lights_the_source_with_pythons_weights(browser: Any, text: Trace, tmp_path: Path) -> None:
    visit = visit_file(browser, write_trace(text, tmp_path / "t.html"))
    weights = text.weights()
    assert weights is not None
    for t in (2, 0, len(text.steps) - 1):
        visit.page.locator("[role=option]").nth(t).click()
        assert selected(visit) == t
        assert np.abs(np.array(lit(visit)) - weights[t]).max() <= 1e-5
        most = visit.page.locator(".slot.most")
        assert most.count() == 1 and most.locator(".figure").inner_text() == f"{100 * weights[t].max():.0f} %"
        colour = "nodes => nodes.map(n => getComputedStyle(n.querySelector('.text')).backgroundColor)"
        colours = visit.page.eval_on_selector_all(".slot", colour)
        assert colours[weights[t].argmax()] != colours[weights[t].argmin()]
        said = visit.page.locator("[role=status]").text_content()
        assert said.startswith(f"Token {t + 1} of {len(text.steps)}: ") and "Read from " in said
    visit.check_silent()


def test_a_layer_and_a_head_are_chosen_and_averages_are_called_so(browser: Any, text: Trace, tmp_path: Path) -> None:
    visit = visit_file(browser, write_trace(text, tmp_path / "t.html"))
    told = visit.page.locator(".reading")
    assert told.inner_text() == "weights: average over 3 heads of 2 layers"
    for layer, head, name in (
        (1, 2, "layer 2, head 3"),
        (None, 0, "average of head 1 over 2 layers"),
        (0, None, "average over 3 heads of layer 1"),
    ):
        visit.page.get_by_label("Layer", exact=True).select_option(index=0 if layer is None else layer + 1)
        visit.page.get_by_label("Head", exact=True).select_option(index=0 if head is None else head + 1)
        assert told.inner_text() == f"weights: {name}"
        assert np.abs(np.array(lit(visit)) - text.weights(layer, head)[0]).max() <= 1e-5  # type: ignore[index]
    tile = visit.page.get_by_label("layer 1, head 2")
    tile.click()
    assert told.inner_text() == "weights: layer 1, head 2" and tile.get_attribute("aria-pressed") == "true"
    tile.click()
    assert told.inner_text() == "weights: average over 3 heads of 2 layers"
    visit.check_silent()


def test_a_large_trace_has_averages_over_heads_and_says_so(
    browser: Any, text: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert text.attention is not None
    layers, heads = text.attention.shape[:2]
    monkeypatch.setattr(page_of_a_trace, "MOST_WEIGHTS", text.attention.size // heads)
    visit = visit_file(browser, write_trace(text, tmp_path / "t.html"))
    assert f"average over {heads} heads of {layers} layers" in visit.page.locator(".reading").inner_text()
    assert "averages over the heads of each layer" in visit.page.locator("#trace").inner_text()
    assert visit.page.get_by_label("Head", exact=True).count() == 0
    assert visit.page.locator(".heads button").count() == layers
    visit.page.get_by_label("layer 2, average of 3 heads").click()
    assert visit.page.locator(".reading").inner_text() == "weights: average over 3 heads of layer 2"
    assert np.abs(np.array(lit(visit)) - text.weights(1)[0]).max() <= 1e-5  # type: ignore[index]
    visit.check_silent()
    monkeypatch.setattr(page_of_a_trace, "MOST_WEIGHTS", 1)
    visit = visit_file(browser, write_trace(text, tmp_path / "t.html"))
    assert visit.page.locator("select, .heads").count() == 0
    assert np.abs(np.array(lit(visit)) - text.weights()[0]).max() <= 1e-5  # type: ignore[index]
    visit.check_silent()


def test_a_text_that_is_there_twice_is_told_apart(browser: Any, tokenizer: Tokenizer, tmp_path: Path) -> None:
    traced = trace_of(tokenizer, ["ba do ba", "lu"])
    texts = [visible(slot.text) for slot in traced.slots]
    names = [slot_name(traced.slots, i) for i in range(len(texts))]
    twice = {text for text in texts if texts.count(text) == 2}
    assert twice
    for text in twice:
        assert [name for name in names if name.startswith(f"{text} (")] == [f"{text} (1st)", f"{text} (2nd)"]
    assert all(name == text for name, text in zip(names, texts, strict=True) if texts.count(text) == 1)
    visit = visit_file(browser, write_trace(traced, tmp_path / "t.html"))
    titles = visit.page.eval_on_selector_all(".slot", "nodes => nodes.map(n => n.title.split(':')[0])")
    assert titles == names
    visit.check_silent()


def test_ordinals() -> None:
    slots = [Slot("token", "a")] * 123
    ends = {slot_name(slots, i - 1)[3:-1] for i in (1, 2, 3, 4, 11, 12, 13, 21, 111, 112, 122, 123)}
    assert ends == {"1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "111th", "112th", "122nd", "123rd"}


def test_arrow_keys_go_from_token_to_token(browser: Any, text: Trace, tmp_path: Path) -> None:
    visit = visit_file(browser, write_trace(text, tmp_path / "t.html"))
    last = len(text.steps) - 1
    visit.page.locator("[role=option][tabindex='0']").focus()
    walk = [
        ("ArrowRight", 1),
        ("ArrowRight", 2),
        ("ArrowLeft", 1),
        ("End", last),
        ("ArrowRight", last),
        ("Home", 0),
        ("ArrowLeft", 0),
    ]
    for key, expected in walk:
        visit.page.keyboard.press(key)
        assert selected(visit) == expected
        focused = "document.activeElement.getAttribute('aria-selected') + document.activeElement.tabIndex"
        assert visit.page.evaluate(focused) == "true0"
        assert np.abs(np.array(lit(visit)) - text.weights()[expected]).max() <= 1e-5  # type: ignore[index]
    visit.page.keyboard.press("ArrowRight")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert visit.page.evaluate(outline) == "solid"
    visit.check_silent()


def test_what_else_might_have_come_and_what_it_owes(browser: Any, text: Trace, tmp_path: Path) -> None:
    visit = visit_file(browser, write_trace(text, tmp_path / "t.html"))
    for t, step in enumerate(text.steps):
        node = visit.page.locator("[role=option]").nth(t)
        assert ("made-up" in node.get_attribute("class")) == step.made_up
        figure = float(node.locator(".figure").inner_text().replace("−", "-"))
        assert abs(figure - step.bits) <= 0.0501
        node.click()
        names = visit.page.locator(".next .text").all_inner_texts()
        assert len(names) == 5 + (step.id not in [c.id for c in step.likeliest])
        assert visit.page.locator(".next .said").count() == 1
    ends = visit.page.locator("tbody tr").all_inner_texts()
    assert text.beams is not None
    assert len(ends) == sum(beam.ended for step in text.beams for beam in step)
    assert ends[0].split()[0] == "1" and ends[0].endswith(text.output)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1100])
def test_frames_light_up_where_they_were_read(
    browser: Any, features: Trace, tmp_path: Path, width: int, scheme: str
) -> None:
    visit = visit_file(browser, write_trace(features, tmp_path / "t.html"), width=width, scheme=scheme)
    visit.page.locator("[role=option]").nth(3).click()
    weights = features.weights()
    assert weights is not None and np.abs(np.array(lit(visit)) - weights[3]).max() <= 1e-5
    picture, most = visit.page.locator(".picture").bounding_box(), visit.page.locator(".slot.most").bounding_box()
    start, stop = features.slots[int(weights[3].argmax())].frames or (0, 0)
    assert most["x"] == pytest.approx(picture["x"] + picture["width"] * start / 20, abs=1)
    assert most["width"] == pytest.approx(picture["width"] * (stop - start) / 20, abs=1)
    wide = visit.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide[0] <= wide[1]
    ink = visit.page.evaluate("getComputedStyle(document.body).color")
    assert (ink == "rgb(236, 236, 234)") == (scheme == "dark")
    visit.check_silent()


def test_no_text_becomes_markup(browser: Any, evil: Trace, tmp_path: Path) -> None:
    visit = visit_file(browser, write_trace(evil, tmp_path / "t.html"))
    visit.page.locator("[role=option]").nth(1).click()
    assert visit.page.locator("img").count() == 0 and visit.page.locator("script").count() == 2
    assert "onerror" in visit.page.locator("[role=option]").nth(1).inner_text()
    assert visit.page.evaluate("JSON.parse(document.getElementById('data').textContent).output.text") == EVIL
    visit.check_silent()


def test_a_page_without_attention_says_so(browser: Any, text: Trace, tmp_path: Path) -> None:
    bare = replace(text, attention=None, beams=None, self_attention={})
    visit = visit_file(browser, write_trace(bare, tmp_path / "t.html"))
    assert "no cross-attention" in visit.page.locator("#trace").inner_text()
    visit.page.locator("[role=option]").nth(1).click()
    assert visit.page.locator(".next li").count() >= 5 and visit.page.locator("select, canvas, table").count() == 0
    visit.check_silent()


def test_latents_and_unknown_bits(browser: Any, tokenizer: Tokenizer, tmp_path: Path) -> None:
    traced = trace_of(tokenizer, [np.ones((20, DIMS), np.float32)], "perceiver")
    visit = visit_file(browser, write_trace(traced, tmp_path / "t.html"))
    assert len(lit(visit)) == len(traced.slots) == 5
    told = visit.page.locator("#trace").inner_text()
    assert "latents" in told and "Source bits are unknown" in told
    visit.check_silent()


def test_the_page_is_one_file_and_its_data_cannot_end_it(evil: Trace, tmp_path: Path) -> None:
    page = write_trace(evil, tmp_path / "new" / "t.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page and not re.search(r"https?://(?!www\.w3\.org)|@import|url\(", page)
    assert page.count("<script") == 2 and page.count("</script") == 2 and "<img" not in page
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert data and json.loads(data[1]) == evil.to_dict()


def test_a_page_that_cannot_be_written_is_refused(text: Trace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="cannot be written"):
        write_trace(text, tmp_path / "file" / "t.html")


def test_the_terminal_tells_every_token(text: Trace, capsys: pytest.CaptureFixture[str]) -> None:
    print_trace(text)
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert ["output", text.output] in lines
    rows = lines[lines.index(["token", "p", "source bits", "read from"]) + 1 :]
    assert len(rows) == len(text.steps)
    for t, (row, step) in enumerate(zip(rows, text.steps, strict=True)):
        assert float(row[1]) == pytest.approx(step.p, rel=1e-3) and float(row[2]) == pytest.approx(step.bits, abs=0.006)
        assert float(row[3].split(", ")[0].split()[-1]) == pytest.approx(text.weights()[t].max(), abs=6e-4)  # type: ignore[index]


def test_the_terminal_with_colours(features: Trace, evil: Trace, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    print_trace(features)
    out = capsys.readouterr().out
    assert "\x1b[" in out and "over time" in out and "frames" in out
    print_trace(replace(evil, output="a\x1b[2Jb", steps=[replace(s, text="[red]\x07") for s in evil.steps]))
    out = capsys.readouterr().out
    assert "\x1b[2J" not in out and "\x07" not in out and "[red]·" in out


def test_slots_read_most_come_first(text: Trace) -> None:
    weights = text.weights()
    assert weights is not None
    for t in range(len(text.steps)):
        found = [weight for _, weight in read_from(text, t)]
        assert found == sorted(weights[t], reverse=True)[: len(found)] and found
    assert read_from(replace(text, attention=None), 0) == []


def test_the_strip_is_as_high_as_the_weights() -> None:
    slots = [Slot("prompt", "a"), *(Slot("frames", frames=(i, i + 1)) for i in range(64))]
    weights = np.zeros(65)
    weights[[0, 1, 64]] = 0.2, 0.8, 0.0
    drawn = strip(slots, weights)
    assert len(drawn) == 32 and drawn[0] == "▇" and set(drawn[1:]) == {" "}
    weights[[63, 64]] = 0.5
    assert strip(slots, weights)[-1] == "█"


def test_the_command_prints_or_writes(here: Path, models: Models, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", str(models.text), "ba do", "-o", "t.html", "--beams", "2"]) == 0
    said = capsys.readouterr()
    assert "source\tba do\n" in said.out and said.err == "sourcewise: wrote t.html\n"
    assert "<!doctype html>" in (here / "t.html").read_text(encoding="utf-8")
    assert main(["trace", str(models.text), "good.tsv", "--id", "2", "--json", "--max-new-tokens", "3"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["source"]["text"] == "ki" and tree["source_bits"]["against"] == "2 other sources of good.tsv"
    assert main(["trace", str(models.features), "m.tsv", "--id", "clip1", "--features", "features", "--json"]) == 0
    by_id = json.loads(capsys.readouterr().out)
    assert main(["trace", str(models.features), "features/clip1.npy", "--json"]) == 0
    by_file = json.loads(capsys.readouterr().out)
    assert by_id["attention"] == by_file["attention"] and by_id["source"]["features"]["frames"] == 8


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("trace {text}", "the following arguments are required: SOURCE; see sourcewise trace --help"),
        ("trace nope ba", "nope: "),
        ("trace {text} nope.npy", "nope.npy: no such file"),
        ("trace {text} good.tsv", "good.tsv: a file of many sources; name one with --id"),
        ("trace {text} nope.tsv --id 3", "nope.tsv: no such file"),
        ("trace {text} good.tsv --id 9", "good.tsv: has no source 9; its first is 1"),
        ("trace {features} m.tsv --id clip", "m.tsv: has no source clip; did you mean clip"),
        ("trace {features} ba", "sources: its sources are text; "),
        ("trace {text} features/clip1.npy", "features/clip1.npy: its sources are features 4 wide; "),
        ("trace {text} ba --beams 0", "generation: beams should be greater than 0, not 0"),
        ("trace {text} ba -o features", "features: is a folder; name a file to write"),
        ("trace {text} ba --features features", "sources: a folder of features goes with a manifest, which is a .tsv"),
    ],
)
def test_a_wrong_request_is_one_line(words: str, line: str, refused: Any) -> None:
    assert refused(words).startswith(line)


def test_an_empty_source_is_refused(models: Models, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", str(models.text), " "]) == 2
    assert "SOURCE: is empty" in capsys.readouterr().err
