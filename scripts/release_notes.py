"""Print the notes of a release: the section of CHANGELOG.md of the version that sourcewise/__init__.py names.

python scripts/release_notes.py

Exit status 2, with one line, where the version has no section, or CITATION.cff names another.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def notes(changelog: str, version: str) -> str:
    """The section of a version, without its title. Raises ValueError where there is none, or it is empty."""
    found = re.search(rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    if found is None or not found[1].strip():
        raise ValueError(f"CHANGELOG.md: no section [{version}]; name the release there, above what it changes")
    return found[1].strip() + "\n"


def version_of(package: str) -> str:
    """The version that a package's `__init__.py` names."""
    return re.search(r'^__version__ = "(.+)"$', package, re.MULTILINE)[1]  # type: ignore[index]


def check_citation(citation: str, version: str) -> None:
    """Raises ValueError where CITATION.cff names another version."""
    if f"\nversion: {version}\n" not in citation:
        raise ValueError(f"CITATION.cff: its version is not {version}, that of sourcewise/__init__.py")


def main() -> int:
    """Print the notes of this version."""
    version = version_of((ROOT / "sourcewise" / "__init__.py").read_text(encoding="utf-8"))
    try:
        check_citation((ROOT / "CITATION.cff").read_text(encoding="utf-8"), version)
        print(notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version), end="")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
