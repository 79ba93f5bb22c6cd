"""Measures what an installation takes: the wheel, and each extra beside it, in clean environments.

    pip wheel --no-deps -w dist . && python scripts/installed_sizes.py dist/sourcewise-*.whl    all extras, some minutes
    python scripts/installed_sizes.py dist/sourcewise-*.whl --only hub h5 --write               into docs/versions.md

torch, transformers and what they need come first. An extra is installed into a copy of that environment with the wheel;
what it takes is the difference of all files, as pip installs and compiles them. Versions are those of constraints.txt.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "versions.md"
OF_PROJECT = {"dev", "docs", "release"}  # extras that users need not know of
BASE = ("torch", "transformers")
PARTS = {  # rows of the table, and the packages whose files they count
    "sourcewise itself": ("sourcewise",),
    "sacrebleu and jiwer, with what they need": (
        "sacrebleu",
        "jiwer",
        "lxml",
        "rapidfuzz",
        "portalocker",
        "tabulate",
        "colorama",
    ),
    "sentencepiece and protobuf": ("sentencepiece", "protobuf"),
}
COUNT = """
import importlib.metadata as m, pathlib, sys
files = {pathlib.Path(str(f.locate())) for name in sys.argv[1:] for f in m.files(name) or ()}
print(sum(path.stat().st_size for path in files if path.is_file()))
"""


def main() -> None:
    """Measure, print, and write the figures into the page where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--only", nargs="+", metavar="EXTRA", help="these extras; all")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/versions.md")
    parser.add_argument("--folder", type=Path, help="where the environments are made; a temporary folder")
    asked = parser.parse_args()
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    extras = asked.only or sorted(set(known) - OF_PROJECT)
    if unknown := set(extras) - set(known):
        parser.error(f"--only {' '.join(sorted(unknown))}: no such extra of pyproject.toml")
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        found = measure(asked.wheel.resolve(), extras, Path(folder))
    for name, size in found.items():
        print(f"{name:50} {size:8.1f} MB", flush=True)
    if asked.write:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")


def measure(wheel: Path, extras: list[str], folder: Path) -> dict[str, float]:
    """Megabytes of the base, of the wheel and its parts, and of each extra."""
    base = folder / "base"
    venv.create(base, with_pip=False, symlinks=True)
    before = size_of(base)
    install(base, *BASE)
    found = {"base": size_of(base) - before, "wheel": wheel.stat().st_size / 1e6}
    install(base, str(wheel))
    found["sourcewise"] = size_of(base) - before - found["base"]
    for row, packages in PARTS.items():
        done = subprocess.run(
            [base / "bin" / "python", "-c", COUNT, *packages], capture_output=True, text=True, check=True
        )
        found[row] = int(done.stdout) / 1e6
    usual = size_of(base)
    for extra in extras:
        copy = folder / extra
        subprocess.run(["cp", "-al", base, copy], check=True)  # links: a gigabyte a copy would take long
        install(copy, f"{wheel}[{extra}]")
        found[extra] = size_of(copy) - usual
        print(f"{extra}: {found[extra]:.1f} MB", file=sys.stderr, flush=True)
        subprocess.run(["rm", "-rf", copy], check=True)
    return found


def install(environment: Path, *what: str) -> None:
    """Install into an environment, in the exact versions that are tested."""
    words = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install", "--quiet"]
    subprocess.run([*words, "-c", str(ROOT / "constraints.txt"), *what], check=True)


def size_of(environment: Path) -> float:
    """Megabytes of all files of an environment."""
    files = (path for path in (environment / "lib").rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / 1e6


def written(page: str, found: dict[str, float]) -> str:
    """The page with these figures in its tables. Raises ValueError where a row is missing."""
    rows = {
        "base": r"^(\| torch for CPUs, transformers, and what these need \| )[\d,]+",
        "sourcewise": r"^(\| \*\*what `pip install sourcewise` adds\*\* \| )\*\*[\d,]+\*\*",
    }
    for name, size in found.items():
        figure = f"{size:,.0f}" if size >= 1 else f"{size:.1f}"
        if name == "wheel":
            page, count = re.subn(r"\(the wheel has [\d.]+\)", f"(the wheel has {size:.1f})", page)
        else:
            pattern = rows.get(name) or (
                rf"^(\| of it: {re.escape(name)}[^|]*\| )[\d,.]+"
                if name in PARTS
                else rf"^(\| `{name}` \|[^|]*\| )[\d,.]+"
            )
            figure = f"**{figure}**" if name == "sourcewise" else figure
            page, count = re.subn(pattern, lambda row, figure=figure: row[1] + figure, page, flags=re.M)  # type: ignore[misc]
        if count != 1:
            raise ValueError(f"{PAGE.name}: no row for {name}, or several")
    return page


if __name__ == "__main__":
    main()
