"""The page at /, in a real browser: what arrives, what lights up, and what it says when it cannot."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import pytest
from fastapi.testclient import TestClient

import sourcewise
from sourcewise.config import GenerationConfig
from sourcewise.generation.model import Model, load
from sourcewise.model.generation_defaults import GenerationDefaults
from sourcewise.serving.app import create_app
from sourcewise.serving.asked import Limits
from tests.browser import Visit, open_browser
from tests.commands import DIMS, Models
from tests.model.networks import VOCABULARY
from tests.serving.served import TEXTS, listening, made, matrix, npy, wait_for

EVIL = '</script><img src=x onerror="document.title = 1">'
TALKATIVE = GenerationConfig(beams=2, max_new_tokens=10, min_new_tokens=6, no_repeat_ngram=2)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


def speaking(bridge: str | None = None, name: str = "tiny") -> Model:
    model = made(bridge)
    model.generation, model.name = TALKATIVE, name
    # Only what can be seen is said: no padding, no id that the tokenizer has no text for.
    model.network.defaults = GenerationDefaults((1,), suppressed=(0, 2, *range(model.tokenizer.size, VOCABULARY)))
    return model


@pytest.fixture(scope="module")
def model() -> Model:
    return speaking()


@pytest.fixture(scope="module")
def url(model: Model) -> Iterator[str]:
    with listening(create_app(model)) as (port, _):
        yield f"http://127.0.0.1:{port}/"


def side(visit: Visit, letter: str = "A") -> Any:
    """The part of the form that asks for one of two decodings."""
    return visit.page.locator("fieldset").nth("AB".index(letter))


def tokens(visit: Visit) -> Any:
    """The tokens of the outputs; the lists of the form have options, too."""
    return visit.page.locator("div[role=option]")


def generate(visit: Visit, source: str | None = None) -> None:
    """Ask for an output, and wait until it is drawn."""
    if source is not None:
        side(visit).get_by_role("textbox", name="Source").fill(source)
    visit.page.get_by_role("button", name="Generate").click()
    visit.page.locator("#stop").wait_for(state="hidden")


def lit(visit: Visit) -> np.ndarray:
    """The weights that the slots of the source show."""
    weights = visit.page.eval_on_selector_all(".slot", "nodes => nodes.map(n => Number(n.dataset.weight))")
    return np.array(weights)


def fits(visit: Visit) -> bool:
    """Whether nothing is wider than the window."""
    return bool(visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def test_a_source_is_typed_and_its_output_arrives_and_is_traced(
    browser: Any, url: str, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, stream = threading.Event(), model.stream

    def halting(*given: Any, **options: Any) -> Iterator[str]:
        for n, piece in enumerate(stream(*given, **options)):
            assert n < 2 or go_on.wait(20)
            yield piece

    monkeypatch.setattr(model, "stream", halting)
    visit = Visit(browser, url)
    wanted = sourcewise.trace(model, TEXTS[2], beams=1)
    side(visit).get_by_role("textbox", name="Source").fill(TEXTS[2])
    visit.page.get_by_role("button", name="Generate").click()
    output = visit.page.locator(".output:visible")
    wait_for(lambda: output.inner_text() != "")
    assert wanted.output.startswith(output.inner_text()) and output.inner_text() != wanted.output  # while it speaks
    go_on.set()
    tokens(visit).first.wait_for()
    assert output.inner_text() == wanted.output and output.get_attribute("aria-live") == "polite"
    figures = visit.page.eval_on_selector_all("[role=option] .figure", "nodes => nodes.map(n => n.textContent)")
    bits = [float(figure.replace("−", "-")) for figure in figures]
    assert np.abs(np.array(bits) - [step.bits for step in wanted.steps]).max() <= 0.0501
    weights = wanted.weights()
    assert weights is not None
    for t in (3, 1):
        tokens(visit).nth(t).click()
        assert np.abs(lit(visit) - weights[t]).max() <= 1e-5
    visit.page.get_by_label("Layer", exact=True).select_option("2")
    visit.page.get_by_label("Head", exact=True).select_option("1")
    assert np.abs(lit(visit) - wanted.weights(1, 0)[1]).max() <= 1e-5  # type: ignore[index]
    visit.check_silent(url)


def test_all_of_it_can_be_done_from_the_keyboard(browser: Any, url: str, model: Model) -> None:
    visit = Visit(browser, url)

    def go_to(what: str) -> None:
        for _ in range(20):
            visit.page.keyboard.press("Tab")
            if visit.page.evaluate("what => document.activeElement.matches(what)", what):
                return
        raise AssertionError(f"Tab does not reach {what}")

    go_to("textarea")
    visit.page.keyboard.type(TEXTS[0])
    go_to("[value=greedy]")
    visit.page.keyboard.press("ArrowRight")
    assert side(visit).get_by_role("radio", name="Beam search").is_checked()
    go_to("[name=beams]")
    visit.page.keyboard.type("3")  # in the place of the figure there, which Tab selects
    visit.page.keyboard.press("Control+Enter")
    tokens(visit).first.wait_for()
    wanted = sourcewise.trace(model, TEXTS[0], beams=3)
    assert visit.page.locator(".output:visible").inner_text() == wanted.output
    go_to("[role=option]")
    visit.page.keyboard.press("ArrowRight")
    assert np.abs(lit(visit) - wanted.weights()[1]).max() <= 1e-5  # type: ignore[index]
    assert "3 beams" in visit.page.locator(".state:visible").inner_text()
    visit.check_silent(url)


def shared(a: list[str], b: list[str]) -> int:
    """The length of a longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = list(row)
        for j, y in enumerate(b):
            row[j + 1] = before[j] + 1 if x == y else max(row[j], before[j + 1])
    return row[-1]


def test_two_decodings_stand_beside_each_other_with_their_difference(browser: Any, url: str, model: Model) -> None:
    visit = Visit(browser, url)
    visit.page.get_by_label("compare two decodings").check()
    second = side(visit, "B")
    second.get_by_role("radio", name="Sampling").check()
    second.get_by_label("temperature").fill("2")
    second.get_by_label("seed").fill("5")
    generate(visit, TEXTS[0])
    wanted = [
        sourcewise.trace(model, TEXTS[0], **options)
        for options in ({"beams": 1}, {"sample": True, "temperature": 2.0, "seed": 5})
    ]
    visit.page.locator("#difference", has_text="Underlined").wait_for()
    ids = [[str(step.id) for step in trace.steps] for trace in wanted]
    common = shared(*ids)
    assert 0 < common < len(ids[0])
    for place, name in enumerate("AB"):
        region = visit.page.get_by_role("region", name=f"Output {name}")
        assert region.locator(".output").inner_text() == wanted[place].output
        assert region.locator("[role=option].differs").count() == len(ids[place]) - common
        marked = [node.get_attribute("aria-label") for node in region.locator(".differs[role=option]").all()]
        assert marked and all(label.endswith(f"not in {'BA'[place]}") for label in marked)
    assert fits(visit)
    second.get_by_label("the source of A").uncheck()
    second.get_by_role("textbox", name="Source").fill(TEXTS[2])
    second.get_by_role("radio", name="Greedy").check()
    generate(visit)
    wait_for(lambda: visit.page.locator(".output").nth(1).inner_text() == model.generate(TEXTS[2], beams=1)[0])
    visit.check_silent(url)


def test_a_word_is_taken_away_and_another_said_there(browser: Any, url: str, model: Model) -> None:
    visit = Visit(browser, url)
    generate(visit, TEXTS[2])
    what_if = visit.page.get_by_role("region", name="What if")
    what_if.get_by_role("button", name="Take each part of the source away").click()
    wanted = sourcewise.trace(model, TEXTS[2], beams=1, what_if=True)
    assert wanted.what_if is not None
    parts = what_if.get_by_role("group").get_by_role("button")
    parts.first.wait_for()
    assert parts.count() == len(wanted.what_if) == len(TEXTS[2].split())
    parts.nth(6).click()  # the second "me": "me no ba dó ki lu me"
    assert what_if.locator(".said-then").inner_text() == wanted.what_if[6].output
    what_if.get_by_role("button", name="Say something else there").click()
    field = side(visit, "B").get_by_role("textbox", name="Source")
    chosen = (
        "[document.activeElement.value, document.activeElement.selectionStart, document.activeElement.selectionEnd]"
    )
    assert visit.page.evaluate(chosen) == [TEXTS[2], len(TEXTS[2]) - 2, len(TEXTS[2])]
    visit.page.keyboard.type("ba")
    visit.page.keyboard.press("Control+Enter")
    visit.page.locator("#difference").wait_for()
    assert field.input_value() == "me no ba dó ki lu ba"
    wait_for(
        lambda: visit.page.locator(".output").nth(1).inner_text() == model.generate(field.input_value(), beams=1)[0]
    )
    assert fits(visit)
    visit.check_silent(url)


def test_stop_frees_the_place_of_a_stream(browser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = speaking(name=EVIL)
    app = create_app(model, Limits(streams=1))

    def forever(*_: Any, **__: Any) -> Iterator[str]:
        for n in itertools.count():
            time.sleep(0.002)
            yield f"{n}{EVIL} "

    monkeypatch.setattr(model, "stream", forever)
    with listening(app) as (port, _):
        visit = Visit(browser, f"http://127.0.0.1:{port}/")
        for stop in (
            lambda: visit.page.get_by_role("button", name="Stop").click(),
            lambda: visit.page.keyboard.press("Escape"),
        ):
            side(visit).get_by_role("textbox", name="Source").fill("ba")
            visit.page.get_by_role("button", name="Generate").click()
            visit.page.locator(".output", has_text=f"0{EVIL}").wait_for()
            stop()
            visit.page.locator(".state", has_text="Stopped.").wait_for()
            wait_for(lambda: not app.state.batcher._streams)
        assert "<img" in visit.page.locator("h1").inner_text() and visit.page.locator("img").count() == 0
        visit.check_silent(f"http://127.0.0.1:{port}/")


def test_what_the_server_says_is_shown(browser: Any, url: str) -> None:
    visit = Visit(browser, url)
    side(visit).get_by_text("Lengths and repeats").click()
    side(visit).get_by_label("most tokens").fill("2000")
    generate(visit, "ba")
    alert = visit.page.get_by_role("alert")
    assert alert.inner_text() == "max_new_tokens should be at most 1024 here, not 2000"
    side(visit).get_by_label("most tokens").fill("7")
    generate(visit)
    assert alert.count() == 0 and tokens(visit).count() > 0
    visit.page.route("**/generate", lambda route: route.abort())
    generate(visit)
    assert alert.inner_text() == "The server does not answer: is sourcewise serve still running?"


def test_a_token_is_asked_for_and_kept_in_the_tab(browser: Any, model: Model) -> None:
    with listening(create_app(model, token="sécret ✓")) as (port, _):
        visit = Visit(browser, f"http://127.0.0.1:{port}/")
        field = visit.page.get_by_label("This server asks for its token")
        generate(visit, "ba")
        for token in ("wrong", "sécret ✓"):
            field.fill(token)
            visit.page.get_by_role("button", name="Go on").click()
            if token == "wrong":
                visit.page.locator("#token .error", has_text="the server's token").wait_for()
        tokens(visit).first.wait_for()  # what had been asked for
        assert not field.is_visible()
        visit.page.reload()
        generate(visit, "ba")
        assert tokens(visit).count() > 0
        assert visit.page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 1]
        assert not any("cret" in asked for asked in visit.requests)


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1100, "light")])
def test_features_are_read_from_a_file(browser: Any, width: int, scheme: str) -> None:
    model = speaking("convolution")
    with listening(create_app(model)) as (port, _):
        visit = Visit(browser, f"http://127.0.0.1:{port}/", width=width, scheme=scheme)
        file = {"name": "clip.npy", "mimeType": "application/octet-stream", "buffer": npy(matrix(20))}
        visit.page.locator("input[type=file]").first.set_input_files(file)
        visit.page.locator(".file", has_text="clip.npy: 20 × 6").wait_for()
        side(visit).get_by_role("radio", name="Sampling").check()
        generate(visit)
        wanted = sourcewise.trace(model, [matrix(20)], sample=True)
        assert visit.page.locator(".output:visible").inner_text() == wanted.output
        assert np.abs(lit(visit) - wanted.weights()[0]).max() <= 1e-5  # type: ignore[index]
        assert fits(visit)
        visit.check_silent(f"http://127.0.0.1:{port}/")


def test_examples_are_those_of_the_run(browser: Any, models: Models) -> None:
    with listening(create_app(load(models.features))) as (port, _):
        address = f"http://127.0.0.1:{port}/"
        told = httpx2.get(f"{address}examples").json()["examples"]
        assert [(example["id"], example["frames"]) for example in told] == [("clip0", 6), ("clip1", 8), ("clip2", 5)]
        content = httpx2.get(f"{address}examples/1").content
        assert content[:6] == b"\x93NUMPY"
        assert f"(8, {DIMS})".encode() in content
        assert httpx2.get(f"{address}examples/3").status_code == 404
        visit = Visit(browser, address)
        side(visit).get_by_label("Example").select_option("example 1")
        visit.page.locator(".file", has_text=f"clip1: 8 × {DIMS}").wait_for()
        generate(visit)
        assert visit.page.locator(".reference").first.inner_text() == "word 1"
        assert "feature" not in visit.page.locator(".state:visible").inner_text()
        visit.check_silent(address)


def test_lines_of_a_file_are_picked_from(browser: Any, models: Models) -> None:
    with listening(create_app(load(models.text))) as (port, _):
        visit = Visit(browser, f"http://127.0.0.1:{port}/")
        example = httpx2.get(f"http://127.0.0.1:{port}/examples").json()["examples"][1]
        side(visit).get_by_label("Example").select_option("example 1")
        field = side(visit).get_by_role("textbox", name="Source")
        assert field.input_value() == example["source"]
        file = {"name": "two.txt", "mimeType": "text/plain", "buffer": "ba dó\n\nlu\r\n".encode()}
        side(visit).get_by_label("Open a text file").set_input_files(file)
        wait_for(lambda: field.input_value() == "ba dó")
        side(visit).get_by_label("Example").select_option("line 1")
        assert field.input_value() == "lu" and not visit.page.locator(".reference").first.is_visible()
        assert fits(visit)
        visit.check_silent(f"http://127.0.0.1:{port}/")


def test_the_page_may_run_its_own_lines_only(model: Model) -> None:
    with TestClient(create_app(model, token="secret")) as client:
        answer = client.get("/")
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert answer.status_code == 200 and client.get("/examples").status_code == 401
    assert policy["default-src"] == "'none'" and policy["connect-src"] == "'self'"
    assert "unsafe" not in str(policy) and policy["script-src"].startswith("'sha256-")
    assert "http" not in answer.text.replace("http://www.w3.org/2000/svg", "")
