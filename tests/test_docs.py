"""The pages: commands parse, options, links and files are there, and docs/features.md works, on a small scale."""

from __future__ import annotations

import ast
import inspect
import json
import re
import runpy
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import yaml

import sourcewise
from sourcewise.cli import main
from sourcewise.cli.parser import COMMANDS
from sourcewise.comparison.plan import load_comparison
from sourcewise.config import CompareConfig, Recipe
from sourcewise.config import messages as schema
from sourcewise.config.files import checked, load_recipe, set_option
from sourcewise.data.readers import digits
from sourcewise.data.readers.manifests import read_manifest
from sourcewise.importing import imported
from tests.generation.folders import TOKENIZER, t5
from tests.test_layers import LAYERS

pytestmark = pytest.mark.pages

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
DECISIONS = sorted((DOCS / "decisions").glob("*.md"))
MIGRATION = sorted((DOCS / "migration").glob("*.md"))
RULES = sorted((DOCS / "rules").glob("*.md"))
HISTORY = [ROOT / "CHANGELOG.md"]  # names what is gone, too
PAGES = [page for page in [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))] if page not in (*RULES, *HISTORY)]
FEATURES = (DOCS / "features.md").read_text(encoding="utf-8")
START = (DOCS / "index.md").read_text(encoding="utf-8")
MADE = {"options.md", "commands.md"}  # by scripts/reference_pages.py
SECTIONS = ["Decision", "Why", "Measurement", "Consequences"]  # of a decision
CODE = ("py", "cpp", "h", "js", "css")
OURS = ("benchmarks", "docs", "recipes", "scripts", "sourcewise", "tests")
ELSEWHERE = {"train_flant5.py", "write_digits.py"}  # FastChat's; what the reader of docs/features.md makes
WIDTH = 120
SMALL = {"train": 240, "valid": 24, "test": 24}  # rows of digits; DAT003 judges sets of 200 and more
SHORT = ("--train.steps", "2", "--model.d_model", "16", "--train.preflight", "false")
# Tried elsewhere (tests/serving, tests/comparison, tests/training), or not in small, or not without the hub.
LEFT_OUT = ("python ", "serve ", "curl ", "compare ", "diagnose runs/bart", "killed", "google/", "facebook/")

each_page = pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a page in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def shell_lines(block: str) -> list[str]:
    """The commands of a block; a line that ends in a backslash, and a document behind <<, belong to the line before."""
    lines: list[str] = []
    end = ""
    for line in block.splitlines():
        if end or (lines and lines[-1].endswith("\\")):
            lines[-1] = f"{lines[-1]}\n{line}"
            end = "" if line == end else end
            continue
        lines.append(line)
        document = re.search(r"<<\s*'?(\w+)'?$", line)
        end = document[1] if document else ""
    return [line for line in lines if line.strip()]


def called(line: str) -> list[str] | None:
    """The words after `sourcewise` in a line of a shell block; None where it calls something else."""
    words = shlex.split(line.replace("\\\n", " ").partition("\n")[0], comments=True)
    if "sourcewise" not in words:
        return None
    return list(takewhile(lambda word: word not in ("|", ">", "&"), words[words.index("sourcewise") + 1 :]))


def commands(text: str) -> Iterator[list[str]]:
    """The words after `sourcewise` of all commands of a page, in blocks and in its sentences."""
    for block in blocks(text, "sh"):
        yield from (words for line in shell_lines(block) if (words := called(line)))
    for said in re.findall(r"`sourcewise ([a-z][^`]*)`", text):
        if "…" not in said:
            yield shlex.split(said)


@each_page
def test_every_command_parses(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        assert words[0] in COMMANDS, words
        if len(words) > 1:  # a sentence may only name a command
            COMMANDS[words[0]].parse(words[1:])


def test_the_commands_of_a_page_are_found() -> None:
    for text in (FEATURES, (ROOT / "README.md").read_text(encoding="utf-8")):
        assert len(list(commands(text))) >= 15


@pytest.mark.parametrize("page", [*PAGES, *RULES], ids=lambda page: page.name)
def test_every_option_is_one(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace("\\_", "_")
    text = re.sub(r"^sourcewise: error:.*$", "", text, flags=re.MULTILINE)
    for option in re.findall(r"--((?:data|model|train|generation|compare)\.[a-z_.]*[a-z_0-9])", text):
        section, *rest = option.split(".")
        root, path = (CompareConfig, rest) if section == "compare" else (Recipe, [section, *rest])
        assert schema.field_at(root, path) is not None, option


@pytest.mark.parametrize("page", MIGRATION, ids=lambda page: page.name)
def test_every_option_beside_another_toolkits_is_one(page: Path) -> None:
    """Options in the second column of its table; its recipe is read by another test."""
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:data|model|train|generation|evaluation)\.[a-z_.]+)`", text)
    for option in named:
        assert schema.field_at(Recipe, option.split(".")) is not None, option
    is_of_options = page.name not in ("README.md", "text2text_pipeline.md")
    assert len(named) >= 5 or not is_of_options
    assert len([block for block in blocks(text, "yaml") if block.startswith("# ")]) == is_of_options


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", text):
        path, _, anchor = "".join(link).partition("#")
        if path.startswith("http"):
            continue
        there = page.parent / path if path else page
        assert there.exists(), path
        if anchor:
            titles = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles], link


@each_page
def test_every_file_of_ours_is_there(page: Path) -> None:
    """A word in backquotes that is a path of this repository, whole, or the name of a file of code in it."""
    here = {path.name for top in OURS for ending in CODE for path in (ROOT / top).rglob(f"*.{ending}")}
    for word in re.findall(r"`([\w./-]+)`", page.read_text(encoding="utf-8")):
        if word.partition("/")[0] in OURS and "/" in word:
            assert (ROOT / word).exists(), word
        elif word.rpartition(".")[2] in CODE:
            assert word in here | ELSEWHERE, f"{word}: no such file, or not its whole path"


def test_the_layers_of_the_architecture_are_those_that_are_tested() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("## Layers")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[a-z`, ]+) \|", table, re.MULTILINE)
    assert [tuple(re.findall(r"`(\w+)`", row)) for row in rows] == [*LAYERS[1:]]  # but for __main__


def test_the_types_of_the_architecture_are_where_it_says() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("## What passes between")[2].partition("\n### ")[0]
    rows = re.findall(r"^\| (`[\w`, ]+) \| (\[[^|]+\)) \|", table, re.MULTILINE)
    assert len(rows) == table.count("\n| `")
    for names, links in rows:
        paths = [ROOT / path for path in re.findall(r"\]\(\.\./([^)]+)\)", links)]
        files = [f for path in paths for f in ([path] if path.suffix == ".py" else sorted(path.rglob("*.py")))]
        code = "\n".join(file.read_text(encoding="utf-8") for file in files)
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"^class {name}\b", code, re.MULTILINE), f"{name} is not in {links}"


def test_every_decision_is_listed_and_has_its_sections() -> None:
    index, *pages = sorted(DECISIONS, reverse=True)
    whole = index.read_text(encoding="utf-8").replace("\n  ", " ")  # an entry may go on in the next line
    listed = re.findall(r"^- (\d{3}) \[(.+)\]\((.+)\)$", whole, re.MULTILINE)
    titles = {page.name: page.read_text(encoding="utf-8").splitlines()[0] for page in pages}
    assert {name: f"# {number} {title}" for number, title, name in listed} == titles
    assert sorted(int(number) for number, _, _ in listed) == [*range(1, len(pages) + 1)]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert page.name[:4] == f"{titles[page.name][2:5]}-", page.name
        assert "\nStatus: " in text and re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS, page.name


@each_page
def test_prose_is_in_lines_that_a_screen_shows(page: Path) -> None:
    """But for tables, links, HTML and what is to be pasted."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    long = [line for line in text.splitlines() if len(line) > WIDTH and not re.match(r"\s*[|<]|    \S", line)]
    assert not [line for line in long if "](" not in line]


@pytest.mark.parametrize("name", ["features.md", "compare.md"])
def test_every_cure_is_a_line_of_a_recipe(name: str) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    cures = re.findall(r"^\| `((?:train|model)\.[^`]+)`", text, re.MULTILINE)
    assert len(cures) >= 5
    for cure in cures:
        tree: dict[str, Any] = {}
        for key, value in yaml.safe_load(cure).items():
            set_option(tree, key, value)
        checked(tree, cure)


def written(text: str, folder: Path) -> list[Path]:
    """The files of a page: blocks that begin with a comment of their name, and documents that the shell writes."""
    made = []
    for block in (*blocks(text, "yaml"), *blocks(text, "python")):
        if name := re.match(r"# ([\w.-]+)\n", block):
            made.append(folder / name[1])
            made[-1].write_text(block, encoding="utf-8")
    return made


@pytest.mark.parametrize("page", [*PAGES, *RULES, *HISTORY], ids=lambda page: page.name)
def test_every_block_of_code_is_read(page: Path) -> None:
    """Each names its language, and is right in it; what programs print is `text`."""
    text = page.read_text(encoding="utf-8")
    assert not hidden_code(text), "code that no test would see: use ``` at the beginning of a line, with a language"
    for language, block in re.findall(FENCED, text, re.M | re.S):
        assert language in READ, f"{language or 'a block without a language'}: {block}"
        if not (page in RULES and compiles(block)):  # lines of Python among the cures are marked `sh`
            READ[language](block)


FENCED = r"^```(\w*)\n(.*?)^```$"


def hidden_code(text: str) -> list[str]:
    """Lines of code outside of the blocks that `FENCED` finds: other fences, and indented code."""
    rest = re.sub(FENCED, "\n", text, flags=re.M | re.S)
    fences = re.findall(r"^.*(?:```|~~~).*$", rest, re.M)
    lines, in_list = rest.splitlines(), False
    for before, line in zip(["", *lines], lines, strict=False):
        in_list = bool(re.match(r"\s*(?:[-*+]|\d+\.) ", line)) or (in_list and (not line.strip() or line[0] == " "))
        if not before.strip() and re.match(r"(?: {4}|\t)\S", line) and not in_list:
            fences.append(line)
    return fences


@pytest.mark.parametrize(
    "code",
    ["~~~sh\nx\n~~~", "- a\n\n  ```sh\n  x\n  ```", "```sh title\nx\n```", "text\n\n    sourcewise x\n", "```sh\nx\n"],
)
def test_hidden_code_is_found(code: str) -> None:
    assert hidden_code(f"# A page\n\n{code}\n")
    assert not hidden_code("- a list\n\n    and its second paragraph\n\n```sh\n    x\n```\n")


OTHERS = {"awk", "cat", "cut", "echo", "export", "head", "timeout", "torchrun", "pytest", "ruff"}  # none of ours


@pytest.mark.parametrize("page", [*PAGES, *RULES], ids=lambda page: page.name)
def test_every_other_command_of_a_shell_is_one(page: Path) -> None:
    """Scripts and their options, extras, targets of make, routes of the server."""
    text = page.read_text(encoding="utf-8")
    made = set(re.findall(r"^# ([\w.-]+\.py)$", text, re.M))
    for block in blocks(text, "sh"):
        for line in shell_lines(block):
            if page in RULES and compiles(line.strip()):
                continue
            if called(line) is None and (words := shlex.split(line.partition("\n")[0], comments=True)):
                check_command(words, made)


def check_command(words: list[str], made: set[str]) -> None:
    """A command that is not `sourcewise`. Fails for one that is not known."""
    command, rest = words[0].removeprefix(".venv/bin/"), words[1:]
    if command == "python" and rest[0] == "-m":
        assert import_module(rest[1]), rest
    elif command == "python":
        if rest[0] in made | ELSEWHERE:
            return
        code = (ROOT / rest[0]).read_text(encoding="utf-8")
        for option in (word for word in rest[1:] if word.startswith("--")):
            assert f'"{option}"' in code or f'"{option.partition("=")[0]}"' in code, f"{rest[0]} has no {option}"
    elif command == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
            "optional-dependencies"
        ]
        for word in rest:
            for named in re.findall(r"\[([\w,]+)\]", word):
                assert set(named.split(",")) <= set(extras), word
    elif command == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
        assert {word for word in rest if "=" not in word} <= set(targets), words
    elif command == "curl":
        (address,) = (word for word in rest if word.startswith("localhost:8000/"))
        route = address.partition("?")[0].removeprefix("localhost:8000")
        code = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "sourcewise" / "serving").glob("*.py"))
        assert f'"{route}"' in code, route
    else:
        assert command in OTHERS or command.startswith("--"), words


def compiles(block: str) -> bool:
    """Whether it is Python."""
    try:
        ast.parse(block)
    except SyntaxError:
        return False
    return True


def read_python(block: str) -> None:
    """Code that compiles, and asks sourcewise for what it has: imports, functions and their keywords."""
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "sourcewise":
            for each in node.names:
                assert hasattr(import_module(str(node.module)), each.name), each.name
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sourcewise":
            assert hasattr(sourcewise, node.attr), node.attr
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("sourcewise."):
            called = inspect.signature(getattr(sourcewise, ast.unparse(node.func).partition(".")[2]))
            takes_all = any(each.kind is each.VAR_KEYWORD for each in called.parameters.values())
            wrong = [each.arg for each in node.keywords if each.arg and each.arg not in called.parameters]
            assert takes_all or not wrong, wrong


def read_shell(block: str) -> None:
    """Words of a shell; its `sourcewise` commands are parsed by another test."""
    done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
    assert done.returncode == 0 or re.match(r"\s*--", block), f"{done.stderr}{block}"


READ = {
    "python": read_python,
    "sh": read_shell,
    "yaml": yaml.safe_load,
    "toml": tomllib.loads,
    "json": json.loads,
    "text": str,
}


@each_page
def test_every_recipe_is_one(page: Path, tmp_path: Path) -> None:
    for path in written(page.read_text(encoding="utf-8"), tmp_path):
        if path.suffix == ".yaml":
            is_comparison = "\ncompare:\n" in path.read_text(encoding="utf-8")
            load_comparison(path) if is_comparison else load_recipe(path)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The reader's folder, with the files of the page in it, and few digits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(digits, "SIZES", SMALL)
    runpy.run_path(str(next(path for path in written(FEATURES, tmp_path) if path.suffix == ".py")))
    return tmp_path


def test_its_files_are_a_manifest_and_its_matrices(place: Path) -> None:
    for split, size in SMALL.items():
        dataset = read_manifest(place / "manifests" / f"{split}.tsv", place / "features" / split)
        assert len(dataset) == size and dataset.dims == 8
        assert [e.target for e in dataset] == [e.target for e in digits.read_digits(split)]
    first = (place / "manifests" / "train.tsv").read_text().splitlines()[:3]
    assert "\n".join(first) in FEATURES


@pytest.mark.slow
def test_the_page_of_features_works(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its commands in their order, with two steps for a training; what is not ours is the shell's to do."""
    said = ""
    for line in (line for block in blocks(FEATURES, "sh") for line in shell_lines(block)):
        words = called(line)
        if any(left in line for left in LEFT_OUT):
            continue
        if words is None:
            subprocess.run(["bash", "-c", line], check=True)
            continue
        status = main([*words, *(SHORT if words[0] == "train" else ())])
        out = capfd.readouterr()
        said += out.out + out.err
        assert status == (1 if "wrong" in line or "slipped" in line else 0), said
    for found in ("error DAT001", "error DAT003", "the manifest says 7"):
        assert found in said and found in FEATURES
    for name in ("results/translations.tsv", "trace.html", "outputs.txt", "runs/mine/report.html"):
        assert (place / name).is_file(), name
    assert load_comparison(place / "which.yaml", {"name": "which"}).variants == ["convolution", "projection", "bypass"]


@pytest.mark.slow
def test_the_paths_of_the_start_page_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As they stand, in an empty folder; a tiny T5 is where the hub's would be, and its own tokenizer."""
    monkeypatch.chdir(tmp_path)
    t5().save_pretrained("google/flan-t5-small")
    TOKENIZER.save(Path("google/flan-t5-small"))
    written(START, tmp_path)
    ran, said = [], ""
    for line in (line for block in blocks(START, "sh") for line in shell_lines(block)):
        words = called(line)
        if words is None and line.startswith("python "):
            runpy.run_path(line.split()[1])
        elif words is not None and words[0] != "demo":  # tests/cli has a demo
            status = main(words)
            ran.append(words[0])
            out = capfd.readouterr()
            said += out.out + out.err
            assert status == (1 if words[0] == "diagnose" else 0), said
    assert ran == ["train", "evaluate", "generate", "train", "evaluate", "trace", "diagnose", "explain", "diagnose"]
    assert "error DAT003" in said and len(Path("outputs.txt").read_text().splitlines()) == 40
    clips = json.loads(Path("runs/clips/metrics.json").read_text())
    assert clips["exact_match_pct"] > 50 and Path("trace.html").is_file()


def test_the_configuration_of_joeynmt_becomes_the_recipe_beside_it(tmp_path: Path) -> None:
    theirs, ours = blocks((ROOT / "docs" / "migration" / "joeynmt.md").read_text(encoding="utf-8"), "yaml")
    (tmp_path / "joey.yaml").write_text(theirs)
    assert imported(tmp_path / "joey.yaml", tmp_path / "recipe.yaml").tree == yaml.safe_load(ours)
