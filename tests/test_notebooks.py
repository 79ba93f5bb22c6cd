"""The notebooks run from their first cell to their last, and say what their pages say."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from sourcewise.runtime.info import EXTRAS

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))
SECONDS = 600
CAUSES = ["healthy", "DAT003", "DAT011", "errors in a healthy loop: []", "WIR003", "WIR028", "WIR027"]  # in their order

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def said(cells: list[dict[str, Any]]) -> str:
    """All that the cells printed."""
    outputs = [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]
    return "".join("".join(output.get("text", "")) for output in outputs if output.get("name") == "stdout")


def check(name: str, text: str) -> None:
    """The figures and findings that the sentences of a notebook speak of."""
    if name.startswith("1"):
        rows = dict(
            re.findall(r"^(\S.*?) +exactly right: +(\d+ % of 3 digits, +\d+ % of 8) digits$", text, re.MULTILINE)
        )
        long = {title: int(re.findall(r"(\d+) %", row)[1]) for title, row in rows.items()}
        assert long["2014: one vector"] < 50 < min(long["2015: attention"], long["T5"])
        bits = [float(each) for each in re.findall(r"(-?[\d.]+) source bits \(8", text)]
        nothing = re.findall(r"T5, wrong sources +(-?[\d.]+):", text)
        assert len(bits) == 3 and min(bits) > 3 and abs(float(nothing[0])) < 1.5
        lost = re.findall(r"^without (\d): +([\d.]+) bits lost, output (.*)$", text, re.MULTILINE)
        assert [digit for digit, _, _ in lost] == list("481507")
        assert all(float(bits) > 5 for _, bits, _ in lost)
        assert sum(digit not in output for digit, _, output in lost) >= 5  # what is taken away is not said
    elif name.startswith("2"):
        places = [text.index(cause) for cause in CAUSES]
        assert places == sorted(places)
    else:
        assert float(re.findall(r"source bits ([\d.]+)", text)[0]) > 3
        assert float(re.findall(r"word error rate ([\d.]+)", text)[0]) < 0.3
        assert "warning DAT011" in text


def test_there_are_three() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["1_how_it_works", "2_why_the_same", "3_features"]


@each_notebook
def test_it_holds_the_outputs_of_one_run(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    assert all(output["output_type"] != "error" for cell in code for output in cell["outputs"])
    for cell in code:
        ast.parse("".join(cell["source"]))
    assert path.stat().st_size < 300_000 and "/tmp/" not in path.read_text(encoding="utf-8")
    check(path.stem, said(cells))


@each_notebook
def test_it_says_what_it_needs(path: Path) -> None:
    """A package that comes with an extra alone is asked for at the beginning."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    needs = {extra for extra, packages in EXTRAS.items() if len(packages) == 1 and f"import {packages[0]}" in code}
    said = set(re.findall(r"sourcewise\[(\w+)\]", "".join(cells[0]["source"])))
    assert said == needs


@pytest.mark.slow
@each_notebook
def test_it_runs(path: Path, tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    book = nbformat.read(path, as_version=4)
    settings = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(book, timeout=SECONDS, kernel_name="python3", resources=settings).execute()
    check(path.stem, said(book.cells))
