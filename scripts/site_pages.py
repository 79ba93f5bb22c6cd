"""What MkDocs asks while it builds the site: pages of files outside docs/, notebooks, and the long lists of the menu.

Pages link to files of this repository, as on GitHub. Each such file becomes a page of the site, so every link works.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
LINK = re.compile(r"(?<=\]\()([^)\s:#]+)(#[^)\s]*)?(?=\))")
OWN = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
UNSEARCHED = "---\nsearch:\n  exclude: true\n---\n"
LANGUAGES = {".py": "python", ".yaml": "yaml", ".cpp": "cpp"}


def on_config(config: Any) -> Any:
    """Fill the menus of rules, notebooks and decisions."""
    for section in config.nav:
        if "Rules" in section:
            section["Rules"] = [{"All rules": "rules/README.md"}, *_titled("rules/symptom-*"), *_titled("rules/*[0-9]")]
        elif "Decisions" in section:
            section["Decisions"] = [{"All decisions": "decisions/README.md"}, *_titled("decisions/*-*")]
    books = [{_title(_markdown(book)): f"notebooks/{book.stem}.md"} for book in _notebooks()]
    if books:
        config.nav.insert(2, {"Notebooks": books})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are no Markdown file of docs/."""
    for book in _notebooks():
        files.append(File.generated(config, f"notebooks/{book.stem}.md", content=_markdown(book)))
    seen: set[Path] = {ROOT / name for name in OWN}
    waiting = [*DOCS.rglob("*.md"), *(ROOT / name for name in OWN if name != "README.md")]
    while waiting:
        page = waiting.pop()
        for there in _outside(page):
            if there not in seen:
                seen.add(there)
                waiting += [there] if there.suffix == ".md" else sorted(there.glob("*.yaml"))
    yaml = [path for there in seen if there.is_dir() for path in there.glob("*.yaml")]
    for there in sorted({*seen, *yaml}):
        if there.name != "README.md":
            files.append(File.generated(config, _page_of(there), content=_shown(there)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links to files outside docs/ lead to their pages."""
    here = _file_of(page.file.src_uri)
    up = "../" * page.file.src_uri.count("/")

    def leads(found: re.Match[str]) -> str:
        there = (here.parent / found[1]).resolve()
        if not there.exists() or (there.is_relative_to(DOCS) and here.is_relative_to(DOCS)):
            return found[0]
        uri = there.relative_to(DOCS).as_posix() if there.is_relative_to(DOCS) else _page_of(there)
        return f"{up}{uri}{found[2] or ''}"

    return LINK.sub(leads, markdown)


def _outside(page: Path) -> list[Path]:
    """The files and folders of this repository outside docs/ that a page links to."""
    found = [(page.parent / link[1]).resolve() for link in LINK.finditer(page.read_text(encoding="utf-8"))]
    return [path for path in found if path.is_relative_to(ROOT) and not path.is_relative_to(DOCS) and path.exists()]


def _page_of(path: Path) -> str:
    """The page that shows a file or folder outside docs/."""
    name = path.relative_to(ROOT).as_posix()
    return OWN.get(name) or f"files/{name}{'/index' if path.is_dir() else ''}.md"


def _file_of(uri: str) -> Path:
    """The file or folder that a page shows; a page of docs/ shows itself."""
    for name, page in OWN.items():
        if page == uri and name != "README.md":
            return ROOT / name
    if uri.startswith("files/"):
        name = uri.removeprefix("files/").removesuffix(".md")
        return ROOT / (f"{name.removesuffix('index')}README.md" if name.endswith("/index") else name)
    return DOCS / uri


def _shown(path: Path) -> str:
    """A file or folder as Markdown."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    title = f"{UNSEARCHED}# `{path.relative_to(ROOT)}`\n\n"
    if path.is_dir():
        rows = [_row(each) for each in sorted(path.iterdir()) if not each.name.startswith((".", "__pycache__"))]
        return title + "| | |\n|---|---|\n" + "\n".join(rows) + "\n"
    text = path.read_text(encoding="utf-8")
    return f"{title}````{LANGUAGES.get(path.suffix, 'text')}\n{text}````\n"


def _row(path: Path) -> str:
    """A line of a folder's table: the name, and what its module says of itself."""
    name = f"[{path.name}]({path.name})" if path.suffix == ".yaml" else f"`{path.name}`"
    said = ""
    if path.suffix == ".py":
        said = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
    return f"| {name} | {said.replace('|', chr(92) + '|')} |"


def _titled(pattern: str) -> list[dict[str, str]]:
    """Title and page of each file of docs/ that matches."""
    paths = sorted(DOCS.glob(f"{pattern}.md"))
    return [{_title(path.read_text(encoding="utf-8")): path.relative_to(DOCS).as_posix()} for path in paths]


def _title(text: str) -> str:
    return re.search(r"^# (.*)$", text, re.MULTILINE)[1]  # type: ignore[index]


def _notebooks() -> list[Path]:
    return sorted((DOCS / "notebooks").glob("*.ipynb"))


def _markdown(book: Path) -> str:
    """A notebook as Markdown, with the outputs that it holds."""
    cells = json.loads(book.read_text(encoding="utf-8"))["cells"]
    parts = [f"[This page as a notebook]({book.name})"]
    for cell in cells:
        text = "".join(cell["source"])
        parts += (
            [text] if cell["cell_type"] == "markdown" else [f"```python\n{text}\n```", *map(_output, cell["outputs"])]
        )
    parts[0], parts[1] = parts[1], parts[0]  # its title stands first
    return "\n\n".join(part for part in parts if part) + "\n"


def _output(output: dict[str, Any]) -> str:
    """One output of a cell: a picture, HTML, or text."""
    data = output.get("data", {})
    if "image/png" in data:
        return f'<img alt="what the code above draws" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
    if "text/html" in data:
        return f"<div>{''.join(data['text/html'])}</div>"
    text = "".join(output.get("text") or data.get("text/plain", ""))
    return f"```text\n{text.rstrip()}\n```" if text.strip() else ""
