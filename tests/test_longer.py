"""The list of tests that take more than a second."""

from __future__ import annotations

import ast
from pathlib import Path

from scripts.longer_tests import longer

ROOT = Path(__file__).parents[1]


def test_every_line_names_a_test() -> None:
    lines = (ROOT / "tests" / "longer.txt").read_text(encoding="utf-8").splitlines()
    assert lines == sorted(set(lines)) and lines
    for file in {line.split("::")[0] for line in lines}:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        known = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        named = {line.split("::")[-1].split("[")[0] for line in lines if line.startswith(f"{file}::")}
        assert named <= known, f"{file}: {named - known}; see scripts/longer_tests.py"


def test_it_is_read_off_what_pytest_prints() -> None:
    log = [
        "  2.31s call     tests/a.py::b[x y]",
        "9.00s setup    tests/a.py::c",
        "0.99s call     tests/a.py::d",
        "4.00s call     tests/training/test_published_tables.py::e",
        "5 passed",
    ]
    assert longer(log) == ["tests/a.py::b[x y]"]
