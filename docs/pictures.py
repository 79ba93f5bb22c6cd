"""The pictures of README and docs: pages and a terminal as a person sees them, from runs of the two demos.

    python docs/pictures.py                                     trains both demos into a temporary folder first, minutes
    python docs/pictures.py --digits runs/digits --dates runs/dates --only trace page

Needs a chromium, and the extras demo, dev and serve. A picture comes in light and dark where README and docs show both.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

IMAGES = Path(__file__).parent / "images"
MOST_BYTES = 300_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DATE = "de_DE: Dienstag, 3. März 1987"
COLUMNS = 80  # of the terminal
COMMAND = [sys.executable, "-m", "sourcewise"]
SCHEMES = {"": "light", "-dark": "dark"}
Shot = Callable[[Browser, Path, Path], None]  # (browser, digits, dates)


def main() -> None:
    """Take the pictures that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=Path, help="a run of the demo digits; trained where it is left out")
    parser.add_argument("--dates", type=Path, help="a run of the demo dates")
    parser.add_argument("--only", nargs="+", choices=SHOTS, default=list(SHOTS), help="which pictures; all")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        given = {"digits": asked.digits, "dates": asked.dates}
        runs = [run or train(name, Path(folder)) for name, run in given.items()]
        found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])  # containers run as root
        for name in asked.only:
            SHOTS[name](browser, *runs)
        browser.close()


def train(name: str, folder: Path) -> Path:
    """A run of a demo."""
    runs = folder / "runs"
    subprocess.run([*COMMAND, "train", name, "--output", str(runs)], check=True, stdout=subprocess.DEVNULL)
    return runs / name


def report(browser: Browser, digits: Path, dates: Path) -> None:
    """The head of a report: verdict, figures, findings, curves; and, further down, samples."""
    for suffix, scheme in SCHEMES.items():
        with opened(browser, (digits / "report.html").absolute().as_uri(), scheme, 1000) as page:
            save(page, f"report{suffix}", upto=bottom(page, ".charts figure >> nth=3") + 6)
    with opened(browser, (dates / "report.html").absolute().as_uri(), "light", 1000) as page:
        top, end = place(page, "#samples")["y"], bottom(page, ".token-samples li >> nth=5")
        save(page, "samples", top - 8, end + 6)


def trace(browser: Browser, digits: Path, dates: Path) -> None:
    """A trace of a text with a token chosen that says much of its source; and one of features."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.html"
        traced(dates, "-o", str(file))
        for suffix, scheme in SCHEMES.items():
            with opened(browser, file.as_uri(), scheme, 1000) as page:
                choose_richest(page, after=4)
                save(page, f"trace{suffix}", upto=bottom(page, ".heads") + 24)
    with opened(browser, (digits / "report.html").absolute().as_uri(), "light", 1000) as page:
        page.get_by_role("tab").nth(1).click()
        page.locator("#trace [role=option]").nth(2).click()
        save(page, "trace-features", place(page, "#traces")["y"] - 8, bottom(page, "#trace .heads") + 24)


def terminal(browser: Browser, digits: Path, dates: Path) -> None:
    """What `sourcewise trace` prints, in a terminal's colours."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text.assemble(("$ ", "green"), f"sourcewise trace runs/dates '{DATE}'\n"))
    console.print(Text.from_ansi(traced(dates, FORCE_COLOR="1", COLORTERM="truecolor", COLUMNS=str(COLUMNS))))
    lines = console.export_html(theme=THEME, inline_styles=True, code_format="{code}")
    with opened(browser, "about:blank", "dark", 780) as page:
        page.set_content(f"<style>{TERMINAL}</style><pre>{lines.rstrip()}</pre>")
        save(page, "terminal", place(page, "pre")["y"], bottom(page, "pre"))


def web_page(browser: Browser, digits: Path, dates: Path) -> None:
    """The page that `sourcewise serve` shows: a source typed, its output, a token chosen."""
    with served(dates) as url:
        for suffix, scheme in SCHEMES.items():
            with opened(browser, url, scheme, 1000) as page:
                page.get_by_role("textbox").first.fill(DATE)
                page.keyboard.press("Control+Enter")
                page.locator(".trace [role=option]").first.wait_for(timeout=60_000)
                choose_richest(page, after=4)
                save(page, f"page{suffix}", upto=bottom(page, ".detail") + 24)


SHOTS: dict[str, Shot] = {"report": report, "trace": trace, "terminal": terminal, "page": web_page}
ANSI = [(40, 42, 42), (255, 138, 128), (78, 201, 160), (227, 176, 75), (106, 180, 240), (213, 155, 204), (90, 200, 210)]
THEME = TerminalTheme((24, 26, 27), (222, 222, 218), [*ANSI, (222, 222, 218)])
TERMINAL = """
body { margin: 0; background: #0e0f0f; } pre { margin: 0; padding: 22px 26px; background: #181a1b; color: #dededa;
font: 15px/1.45 "DejaVu Sans Mono", ui-monospace, monospace; }
"""


def traced(run: Path, *words: str, **environment: str) -> str:
    """What `sourcewise trace` says of a date; called from where the run is `runs/…`."""
    asked = [*COMMAND, "trace", f"{run.parent.name}/{run.name}", DATE, *words]
    where = run.absolute().parent.parent
    done = subprocess.run(
        asked, check=True, stdout=subprocess.PIPE, text=True, cwd=where, env={**os.environ, **environment}
    )
    return done.stdout


@contextmanager
def opened(browser: Browser, url: str, scheme: Any, width: int) -> Iterator[Page]:
    """A page, in finer points than it is wide."""
    size: Any = {"width": width, "height": 900}
    page = browser.new_page(viewport=size, color_scheme=scheme, device_scale_factor=1.5, reduced_motion="reduce")
    page.goto(url)
    yield page
    page.close()


@contextmanager
def served(run: Path) -> Iterator[str]:
    """The address of a server of a run."""
    server = subprocess.Popen([*COMMAND, "serve", str(run), "--port", "0"], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        address = next(found for line in server.stderr if (found := re.search(r"http://\S+", line)))
        yield address[0]
    finally:
        server.terminate()
        server.wait()


def choose_richest(page: Page, after: int) -> None:
    """Click the token with the most source bits, `after` so many of its kind: a later one has a tale to tell."""
    told = page.locator(".target [role=option] .figure").all_inner_texts()
    bits = [float(text.replace("−", "-")) for text in told]
    richest = max(range(min(after, len(bits) - 1), len(bits)), key=bits.__getitem__)
    page.locator(".target [role=option]").nth(richest).click()
    page.mouse.move(0, 0)


def place(page: Page, selector: str) -> Any:
    """Where an element is on the page."""
    return page.locator(selector).first.evaluate(
        "n => { const r = n.getBoundingClientRect(); return { y: r.y + scrollY, height: r.height }; }"
    )


def bottom(page: Page, selector: str) -> float:
    """Where an element ends."""
    box = place(page, selector)
    return float(box["y"] + box["height"])


def save(page: Page, name: str, top: float = 0, upto: float = 900) -> None:
    """A stretch of a page as a PNG; in fewer colours where it would be large."""
    width = page.viewport_size["width"]  # type: ignore[index]
    taken = page.screenshot(full_page=True, clip={"x": 0, "y": top, "width": width, "height": upto - top})
    picture = Image.open(io.BytesIO(taken)).convert("RGB")
    path = IMAGES / f"{name}.png"
    picture.save(path, optimize=True)
    if path.stat().st_size > MOST_BYTES:
        picture.quantize(256).save(path, optimize=True)
    print(f"{path}  {picture.width} × {picture.height}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
