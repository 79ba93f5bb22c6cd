"""The page that a training leaves, `sourcewise report` and `sourcewise diagnose` say one thing of a run."""

from __future__ import annotations

import json
import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import pytest

import sourcewise
from sourcewise.cli import main
from sourcewise.errors import RequestError
from sourcewise.evaluation.results import Evaluation
from sourcewise.evaluation.verdict import verdict_of
from sourcewise.reporting.report import write_report
from tests.training.recipes import recipe

pytestmark = pytest.mark.pages

ILL: dict[str, dict[str, Any]] = {
    "too short": {},
    "misaligned pairs": {"train__steps": 120},
    "one target": {"train__steps": 320, "train__learning_rate": 3e-3},
    "rate far too high": {"train__steps": 60, "train__learning_rate": 30.0},
    "rate far too low": {"train__steps": 320, "train__learning_rate": 1e-7, "train__batch_tokens": 64},
    "encoder frozen": {"train__steps": 60, "train__freeze": ["encoder", "embedding"]},
    "ends in values that are not finite": {"train__steps": 60, "train__learning_rate": 1e30, "train__clip": 0.0},
}


def spoiled(folder: Path, name: str) -> None:
    """Make the training pairs as ill as the name says."""
    head, *rows = (folder / "pairs.tsv").read_text(encoding="utf-8").splitlines()
    sources, targets = zip(*(row.split("\t") for row in rows), strict=True)
    if name == "misaligned pairs":
        targets = (*targets[400:], *targets[:400])
    elif name == "one target":
        targets = ("one two",) * len(targets)
    lines = [head, *("\t".join(pair) for pair in zip(sources, targets, strict=True))]
    (folder / "pairs.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module", params=list(ILL))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ill run, as its training left it."""
    folder = tmp_path_factory.mktemp("ill")
    made = recipe(folder, **{"train__evaluate_every": 1000, **ILL[request.param]})
    spoiled(folder, request.param)
    try:
        sourcewise.train(made)
    except RequestError as problem:
        assert "not finite" in request.param, problem
    return folder / "runs" / "tiny"


def on_the_page(text: str) -> tuple[str | None, list[str], list[str]]:
    """What a report says: its cause, level and code of each finding in order, and what was not checked."""
    plain = " ".join(unescape(re.sub(r"<[^>]+>", " ", text.replace("</li>", "\u2029"))).split(" "))
    section = plain[plain.index("Findings") : plain.index("Curves")]
    cause = re.search(r"Start with ([A-Z]{3}\d{3})", plain)
    found = re.findall(r"\b(error|warning|note)\s+([A-Z]{3}\d{3})\s", section.split("Not checked here")[0])
    missing = section.split("Not checked here")[1].split("\u2029")[:-1]
    return cause and cause[1], [" ".join(each) for each in found], [" ".join(item.split()) for item in missing]


def test_report_and_diagnose_name_one_cause(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left = (run / "report.html").read_text(encoding="utf-8")
    main(["diagnose", str(run), "--json"])
    said = json.loads(capsys.readouterr().out)
    findings = [f"{finding['level']} {finding['code']}" for finding in said["findings"]]
    expected = said["cause"], findings, [" ".join(item.split()) for item in said["not_checked"]]
    assert findings
    assert on_the_page(left) == expected
    assert main(["report", str(run)]) == 0
    assert on_the_page((run / "report.html").read_text(encoding="utf-8")) == expected


def test_it_is_not_healthy_where_evaluate_says_failed(run: Path) -> None:
    if not (run / "metrics.json").is_file():
        pytest.skip("stopped before its evaluation")
    verdict = verdict_of(Evaluation.from_folder(run))
    assert verdict is not None and verdict.level == "failed"
    diagnosis = sourcewise.diagnose(run)
    found = {finding.code: finding for finding in diagnosis.findings}
    poor = found["OUT009"]
    assert poor.level == "error" or (poor.level == "note" and "No error: " in poor.evidence)
    assert diagnosis.verdict == "ill" or {"TRN013", "TRN014"} & set(found)


def test_the_same_without_the_training_data(run: Path, tmp_path: Path) -> None:
    """The pre-flight's own words, where it was noted; a line that it could not be opened, where it was not."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    text = (copy / "recipe.yaml").read_text(encoding="utf-8").replace("pairs.tsv", "gone.tsv")
    (copy / "recipe.yaml").write_text(text, encoding="utf-8")
    diagnosis = sourcewise.diagnose(copy)
    assert any("never held against the training data" in item for item in diagnosis.not_checked)
    page = on_the_page(write_report(copy).read_text(encoding="utf-8"))
    assert page[0] == diagnosis.cause
    assert page[1] == [f"{finding.level} {finding.code}" for finding in diagnosis.findings]
