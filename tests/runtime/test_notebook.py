"""Answers show themselves in a notebook, and their repr is a line; tried in a real kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

import sourcewise
from sourcewise.diagnosis.answer import Diagnosis
from sourcewise.diagnosis.finding import Finding
from sourcewise.runtime.notebook import shaded, table
from tests.commands import Models

BAD = Finding("SRC001", "source <unused>", "error", "0 bits & nothing", "do <this>")


def test_everything_is_escaped() -> None:
    page = table("<a>", ("<b>",), [["<script>"]], "<c>") + shaded("<d>", [("<e>", 2.0, '"><f>')], "<g>")
    assert "<script>" not in page and not any(f"<{letter}>" in page.replace("<b>&lt;", "") for letter in "acdefg")
    assert "0.75" in page  # at most


def test_a_finding_and_a_diagnosis() -> None:
    found = Diagnosis([BAD], ["the wiring"])
    page = found._repr_html_()
    assert "ill, the cause is SRC001" in page and "0 bits &amp; nothing" in page and "not checked: the wiring" in page
    assert repr(found) == "<Diagnosis: ill: SRC001 error; 1 not checked>"
    assert repr(Diagnosis([])) == "<Diagnosis: healthy>" and "healthy" in Diagnosis([])._repr_html_()
    assert "source &lt;unused&gt;" in BAD._repr_html_()


def test_a_model_an_evaluation_and_a_trace(models: Models) -> None:
    model = sourcewise.load(models.text)
    evaluation = sourcewise.evaluate(model, "dates", generation={"max_new_tokens": 4})
    traced = sourcewise.trace(model, "today", max_new_tokens=4)
    for answer in (model, evaluation, traced):
        assert "\n" not in repr(answer) and len(repr(answer)) < 300, repr(answer)
        assert answer._repr_html_().startswith("<div><b>")
    assert "parameters" in repr(model) and "BLEU" in repr(evaluation) and "distinct outputs" in evaluation._repr_html_()


CELLS = [
    "import sourcewise",
    "model = sourcewise.load({folder!r})\nmodel",
    "sourcewise.evaluate(model, 'dates', generation=dict(max_new_tokens=4))",
    "sourcewise.trace(model, 'today', max_new_tokens=4)",
    "found = sourcewise.diagnose(model, 'dates', generation=dict(max_new_tokens=4))\nfound",
    "found.findings[0]",
]


def test_in_a_real_kernel(models: Models, tmp_path: Path) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    cells = [nbformat.v4.new_code_cell(text.format(folder=str(models.text))) for text in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    shown = [out.data for cell in cells[1:] for out in cell.outputs if out.output_type == "execute_result"]
    assert len(shown) == 5 and all("text/html" in data and "\n" not in data["text/plain"] for data in shown)
    assert "error" in shown[-1]["text/html"] or "note" in shown[-1]["text/html"] or "warning" in shown[-1]["text/html"]
