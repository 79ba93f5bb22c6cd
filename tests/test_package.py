"""What is released: the archives hold all that is needed, and the installed package works outside of the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

import sourcewise
from scripts.release_notes import check_citation, notes, version_of

ROOT = Path(__file__).parents[1]
MOST_MB = 5  # of the wheel
PROGRAM = """\
from __future__ import annotations

import sourcewise


def reads_its_source(folder: str, data: str) -> bool:
    evaluation = sourcewise.evaluate(folder, data, generation={"beams": 1})
    causes: list[str | None] = [sourcewise.diagnose(folder, data).cause]
    outputs: list[str] = sourcewise.load(folder).generate(["a source"], max_new_tokens=8)
    return float(evaluation.metrics["source_bits"]) > 1 and causes == [None] and bool(outputs)


try:
    print(reads_its_source("runs/digits", "test.tsv"))
except sourcewise.RequestError as error:
    print(error)
"""


def said(words: list[str | Path], **settings: object) -> str:
    """The output of a command, which must succeed."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **settings)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sdist, and the wheel that is built from it."""
    pytest.importorskip("build", reason="build is not installed: pip install -e '.[release]'")
    folder = tmp_path_factory.mktemp("dist")
    said([sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT])
    return {path.suffix: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def installed(archives: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own with the wheel, and what it depends on from here."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder)
    python = folder / "bin" / "python"
    said([sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", archives[".whl"]])
    theirs = next((folder / "lib").glob("python*/site-packages"))
    (theirs / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")  # an editable install is not found
    return folder


def outside(folder: Path) -> dict[str, object]:
    """How to run a command that knows nothing of the checkout."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {"cwd": folder, "env": {**kept, "HF_HUB_OFFLINE": "1"}}


@pytest.mark.slow
def test_the_archives_are_fit_for_an_index(archives: dict[str, Path]) -> None:
    pytest.importorskip("twine", reason="twine is not installed: pip install -e '.[release]'")
    said([sys.executable, "-m", "twine", "check", "--strict", *archives.values()])
    assert archives[".whl"].stat().st_size < MOST_MB * 1e6


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(archives: dict[str, Path]) -> None:
    names = set(zipfile.ZipFile(archives[".whl"]).namelist())
    here = [*(ROOT / "sourcewise").rglob("*"), *(ROOT / "recipes").glob("*.yaml")]
    for path in here:
        if path.is_file() and "__pycache__" not in path.parts:
            name = path.relative_to(ROOT).as_posix()
            assert (f"sourcewise/{name}" if name.startswith("recipes/") else name) in names
    assert "sourcewise/py.typed" in names
    assert [name for name in names if not name.startswith(("sourcewise/", "sourcewise-"))] == []


@pytest.mark.slow
def test_the_sdist_holds_what_its_tests_need(archives: dict[str, Path]) -> None:
    with tarfile.open(archives[".gz"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = ["pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "Makefile", "mkdocs.yml"]
    wanted += ["recipes/digits.yaml", "scripts/reference_pages.py", "tests/test_package.py", "docs/index.md"]
    assert [name for name in wanted if name not in names] == []


@pytest.mark.slow
def test_the_installed_command_works(installed: Path, tmp_path: Path) -> None:
    command, where = installed / "bin" / "sourcewise", outside(tmp_path)
    assert said([command, "--version"], **where) == f"sourcewise {sourcewise.__version__}\n"
    code = "import sourcewise; print(sourcewise.__file__)"
    assert said([installed / "bin" / "python", "-c", code], **where).startswith(str(installed))
    assert json.loads(said([command, "info", "--json"], **where))["native code"]
    tiny = (
        "--model.d_model 16 --model.d_ff 16 --model.encoder_layers 1 --model.decoder_layers 1 --train.preflight false"
    )
    said([command, "demo", "dates", "--train.steps", "2", *tiny.split()], **where)  # a recipe of the package
    assert "</html>" in (tmp_path / "runs" / "dates" / "report.html").read_text(encoding="utf-8")  # and its templates


def pythons() -> dict[str, str]:
    """Version and path of every Python from 3.11 on of this machine: in PATH, and those of pyenv."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [shutil.which(f"python3.{minor}") for minor in range(11, 20)]
    found += [str(path) for path in sorted(root.glob("versions/3.*/bin/python"))]
    known: dict[str, str] = {}
    for path in filter(None, found):
        asks = [path, "-c", "import sys, venv; print('%d.%d.%d' % sys.version_info[:3])"]
        done = subprocess.run(asks, capture_output=True, text=True)
        version = done.stdout.strip()
        if done.returncode == 0 and tuple(map(int, version.split("."))) >= (3, 11):
            known.setdefault(version, path)
    return known


@pytest.mark.slow
def test_every_python_here_installs_the_wheel(archives: dict[str, Path], tmp_path: Path) -> None:
    """Without what it depends on: every file compiles without a warning, and help and version need nothing else."""
    where = outside(tmp_path)
    for version, python in pythons().items():
        folder = tmp_path / version
        said([python, "-m", "venv", folder], **where)
        own = folder / "bin" / "python"
        said([own, "-m", "pip", "install", "--no-deps", "--no-index", "--no-compile", archives[".whl"]], **where)
        (package,) = (folder / "lib").glob("python*/site-packages/sourcewise")
        said([own, "-W", "error", "-m", "compileall", "-q", package], **where)
        command = folder / "bin" / "sourcewise"
        assert said([command, "--version"], **where) == f"sourcewise {sourcewise.__version__}\n", version
        assert "demo" in said([command, "--help"], **where), version


@pytest.mark.slow
def test_a_users_program_has_types(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    words = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--python-executable",
        installed / "bin" / "python",
        "program.py",
    ]
    said(words, **outside(tmp_path))
    (tmp_path / "program.py").write_text(PROGRAM.replace("float(", "str("))
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **outside(tmp_path))  # type: ignore[call-overload]
    assert done.returncode == 1 and "operator" in done.stdout  # types are seen, not Any


def test_the_notes_of_a_release_are_its_section() -> None:
    log = "# Changelog\n\n## [Unreleased]\n\n- later\n\n## [0.2.0] - 2026-12-01\n\n- now\n\n## [0.1.0]\n\n- before\n"
    assert notes(log, "0.2.0") == "- now\n"
    assert notes(log, "0.1.0") == "- before\n"
    for version in ("0.3.0", "0.2", "2.0"):
        with pytest.raises(ValueError, match="no section"):
            notes(log, version)
    with pytest.raises(ValueError, match="no section"):
        notes("## [1.0.0]\n\n## [0.9.0]\n\n- x\n", "1.0.0")


def test_one_version_is_named_everywhere() -> None:
    text = (ROOT / "sourcewise" / "__init__.py").read_text(encoding="utf-8")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert version_of(text) == sourcewise.__version__
    check_citation(citation, sourcewise.__version__)
    with pytest.raises(ValueError, match="its version is not"):
        check_citation(citation, "9.9.9")
    assert {"cff-version", "message", "title", "authors", "version"} <= set(yaml.safe_load(citation))


def test_forms_ask_for_what_a_report_needs() -> None:
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    asked = {form.stem: yaml.safe_load(form.read_text(encoding="utf-8")) for form in forms}
    for name in ("bug", "diagnosis"):
        ids = {field["id"]: field for field in asked[name]["body"]}
        assert ids["info"]["attributes"]["label"] == "sourcewise info" and ids["info"]["validations"]["required"]
