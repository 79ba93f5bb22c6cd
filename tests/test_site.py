"""The documentation as a site: it builds without a warning, links lead somewhere, and a browser asks nobody else."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import pytest

import sourcewise
from scripts import reference_pages
from tests.browser import Visit, open_browser

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
LOOKED_AT = ("index.html", "options.html", "api.html", "rules/SRC001.html", "notebooks/1_how_it_works.html")
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "srcset", "link": "href"}  # asked for at once

pytestmark = pytest.mark.pages


class Page(HTMLParser):
    """What a page of the site links to, loads, and can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in LOADED and LOADED[tag] in given and given.get("rel") != "canonical":
            self.loads.append(given[LOADED[tag]])


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. Any warning fails the build, since mkdocs.yml says `strict`."""
    pytest.importorskip("material", reason="MkDocs Material is not installed: pip install -e '.[docs]'")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    settings = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https")}  # nobody can be asked
    settings["NO_MKDOCS_2_WARNING"] = "1"  # Material's own, on every build
    done = subprocess.run(words, cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


@pytest.fixture(scope="session")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """Where a server of this machine has the site."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()


@pytest.mark.parametrize("name", reference_pages.PAGES)
def test_the_reference_is_that_of_the_code(name: str) -> None:
    made = reference_pages.PAGES[name]()
    assert (DOCS / name).read_text(encoding="utf-8") == made, "run: python scripts/reference_pages.py"


def test_every_function_of_the_package_is_in_the_reference() -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    for name in sourcewise.__all__:
        if name != "__version__":
            home = f"{getattr(sourcewise, name).__module__}.{name}"
            assert f"::: {home}\n" in text, home


@pytest.mark.slow
def test_every_page_of_the_documents_is_in_the_site(pages: dict[Path, Page], site: Path) -> None:
    built = {path.relative_to(site).with_suffix("").as_posix() for path in pages}
    for page in DOCS.rglob("*.md"):
        name = page.relative_to(DOCS).with_suffix("").as_posix()
        assert name.replace("README", "index") in built


@pytest.mark.slow
def test_every_link_of_the_site_leads_somewhere(pages: dict[Path, Page], site: Path) -> None:
    local = 0
    for path, page in pages.items():
        for link in {*page.links, *page.loads}:
            parts = urlsplit(link)
            if parts.scheme or link.startswith("//"):
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert there.is_relative_to(site.resolve()), f"{path}: {link}"
            there = there / "index.html" if there.is_dir() else there
            assert there.is_file(), f"{path.relative_to(site)}: {link}"
            if parts.fragment and there.suffix == ".html" and not parts.fragment.startswith("__"):
                anchors = (pages.get(there) or Page(there)).anchors
                assert unquote(parts.fragment) in anchors, f"{path.relative_to(site)}: {link}"
            local += 1
    assert local > 5000


@pytest.mark.slow
def test_no_page_loads_anything_from_elsewhere(pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        assert [url for url in page.loads if urlsplit(url).scheme not in ("", "data") or url.startswith("//")] == [], (
            path
        )


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_the_pages_without_a_complaint(address: str, width: int) -> None:
    with open_browser() as browser:
        for name in LOOKED_AT:
            visit = Visit(browser, address + name, width=width, scheme="dark" if width == 390 else "light")
            visit.page.wait_for_load_state("networkidle")
            visit.check_silent(address)
            wider = visit.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wider <= 0, f"{name} is wider than a screen of {width}"
            visit.page.close()


def search_for(visit: Visit, option: str) -> None:
    """Search for an option, and wait until the page of options is found."""
    visit.page.click("label.md-search__icon, .md-search__input")
    visit.page.fill(".md-search__input", option)
    visit.page.wait_for_selector(".md-search-result__item")
    assert "Options" in visit.page.inner_text(".md-search-result")


@pytest.mark.slow
def test_the_site_can_be_searched(address: str) -> None:
    with open_browser() as browser:
        visit = Visit(browser, address, width=1280)
        search_for(visit, "length_penalty")
        visit.check_silent(address)


@pytest.mark.slow
def test_a_page_opens_as_a_file(site: Path) -> None:
    with open_browser() as browser:
        visit = Visit(browser, (site / "index.html").as_uri(), width=1280)
        assert visit.page.inner_text("h1").startswith("sourcewise")
        assert not [url for url in visit.requests if not url.startswith(("file:", "data:", "blob:"))]
