"""`diagnose` never denies what `evaluate` says of the same folder and file, and asks for a set in the same words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import sourcewise
from sourcewise.cli import main
from sourcewise.diagnosis.answer import Piece
from sourcewise.diagnosis.course import Course
from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.outputs import Outputs
from sourcewise.diagnosis.ranking import put_together
from sourcewise.diagnosis.rules import RULES, look
from sourcewise.diagnosis.whole import of_course
from sourcewise.errors import RequestError
from sourcewise.evaluation.results import Evaluation, Row
from sourcewise.evaluation.verdict import verdict_of
from sourcewise.metrics.outputs import output_metrics
from tests.commands import Models
from tests.diagnosis.evaluations import diagnose_evaluation
from tests.evaluation.test_verdict import beside

SENTENCES = [
    f"the {a} man {b} a {c} dog" for a in ("old", "tall", "sad") for b in ("sees", "has") for c in ("red", "big")
]
DATES = [f"{1980 + i}-{1 + i % 12:02d}-{1 + i:02d}" for i in range(12)]
NOUNS = ("boats", "clouds", "horses", "letters", "mountains", "rivers", "songs", "towers", "windows", "years", "keys")
OTHERS = [f"many {noun} were counted near {noun[::-1]} yesterday {i}" for i, noun in enumerate((*NOUNS, "doors"))]


def evaluation(references: Sequence[str], outputs: Sequence[str], **bits: Any) -> Evaluation:
    known = {"source_bits": 3.0, "source_bits_ci95": [2.5, 3.5], "target_tokens": 100} | bits
    rows = [Row(str(i), f"source {i}", r, o) for i, (r, o) in enumerate(zip(references, outputs, strict=True))]
    return Evaluation(output_metrics(references, outputs, [True] * len(rows)) | known, rows)


def check(given: Evaluation) -> list[Finding]:
    return list(look(Outputs(given), codes="OUT009").findings)


POOR = {
    "another's reference": (DATES, [*DATES[1:], DATES[0]]),
    "something else altogether": (SENTENCES, OTHERS),
    "words without their order": (SENTENCES, [" ".join(text.split()[::-1]) for text in SENTENCES]),
    "three examples": (SENTENCES[:3], OTHERS[:3]),
    "one example": (SENTENCES[:1], OTHERS[:1]),
    "one label for every source": (["yes", "no", "maybe"] * 5, ["yes"] * 15),
    "mode collapse": (SENTENCES, SENTENCES[:1] * 12),
}


@pytest.mark.parametrize("kind", POOR)
def test_it_is_ill_where_evaluate_says_failed(kind: str) -> None:
    given = evaluation(*POOR[kind])
    said = verdict_of(given)
    assert said is not None and said.level == "failed"
    diagnosis = diagnose_evaluation(given)
    assert diagnosis.verdict == "ill"
    last = diagnosis.findings[-1]
    assert (last.code, last.level) == ("OUT009", "error")
    assert f"evaluate says failed of {len(given.rows)} examples: {said.text.rstrip('.')}" == last.evidence


def test_where_nothing_else_is_found_it_is_the_cause() -> None:
    assert diagnose_evaluation(evaluation(DATES, DATES[::-1])).cause == "OUT013"
    assert diagnose_evaluation(evaluation(DATES, [f"{1950 + i}-{12 - i:02d}-20" for i in range(12)])).cause == "OUT009"
    assert diagnose_evaluation(evaluation(*POOR["another's reference"])).cause == "OUT013"


@pytest.mark.parametrize(
    ("copy", "found"),
    [((12.0, -1.0, 2.0), ["warning"]), ((12.0, 0.5, 2.0), []), ((100.0, 0.0, 0.0), [])],
    ids=["below copying", "above copying", "undecided"],
)
def test_below_copying_is_a_warning_and_above_it_nothing(copy: Any, found: list[str]) -> None:
    far = (3.0, 5.0, 9.0)
    given = evaluation(SENTENCES, SENTENCES, baselines=beside(far, far, copy, can_tell=copy[0] < 100))
    said = check(given)
    assert [finding.level for finding in said] == found
    assert all("evaluate says below copying" in finding.evidence for finding in said)
    assert check(evaluation(SENTENCES, SENTENCES)) == check(evaluation(DATES, DATES)) == []


def test_without_figures_or_rows_there_is_no_verdict() -> None:
    whole = evaluation(SENTENCES, OTHERS)
    assert check(Evaluation(whole.metrics)) == []
    assert check(Evaluation(whole.metrics | {"bleu": None}, whole.rows)) == []
    assert check(Evaluation({k: v for k, v in whole.metrics.items() if k != "reference_unique_pct"}, whole.rows))


def finding(code: str, level: Any) -> Finding:
    return Finding(code, "", level, "", "")


def test_every_other_rule_explains_it_and_a_note_is_no_cause() -> None:
    assert set(RULES["OUT009"].causes) == set(RULES) - {"OUT009"}
    poor = finding("OUT009", "error")
    assert put_together([Piece([poor, finding("TRN010", "note")])]).cause == "OUT009"
    assert put_together([Piece([poor, finding("TRN010", "warning")])]).cause == "TRN010"


@pytest.mark.parametrize(
    ("excuse", "own", "level"),
    [("TRN013", True, "note"), ("TRN013", False, "note"), ("TRN014", True, "note"), ("TRN014", False, "error")],
)
def test_a_training_that_was_not_over_excuses_its_own_sets(excuse: str, own: bool, level: str) -> None:
    pieces = [Piece([finding("OUT009", "error"), finding(excuse, "note")])]
    found = {f.code: f.level for f in put_together(pieces, own_set=own).findings}
    assert found == {excuse: "note", "OUT009": level}


@pytest.mark.parametrize(
    ("steps", "fall", "own", "level"),
    [(900, 0.0, True, "note"), (150, 0.02, True, "note"), (150, 0.0, True, "error"), (900, 0.02, False, "error")],
    ids=["under way", "still falling at its end", "over", "another set"],
)
def test_so_does_one_that_goes_on(steps: int, fall: float, own: bool, level: str) -> None:
    lines: list[dict[str, Any]] = [{"kind": "start", "step": 0, "steps": steps}]
    lines += [
        {"kind": "train", "step": step, "loss": 5 - fall * step, "gradient_norm": 1.0} for step in range(10, 151, 10)
    ]
    pieces = [of_course(Course.read(lines)), Piece([finding("OUT009", "error")])]
    assert {f.code: f.level for f in put_together(pieces, own_set=own).findings}["OUT009"] == level


# ── the words of evaluate ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def alone(models: Models, here: Path) -> Path:
    """The networks of runs in folders that are no runs."""
    for kind, run in (("text", models.text), ("features", models.features)):
        shutil.copytree(run / "checkpoints" / "best", here / "alone" / kind)
    rows = [f"ba do\tone two\t{i}\n" for i in range(9)]
    (here / "qa.tsv").write_text("question\tanswer\tn\n" + "".join(rows))
    return here / "alone"


ASKED = {
    "a manifest and its features": ("features", "m.tsv", {"features": "features"}),
    "columns": ("text", "qa.tsv", {"source": "question", "target": "answer"}),
    "another column": ("text", "qa.tsv", {"source": "answer", "target": "question"}),
}


@pytest.mark.parametrize("kind", ASKED)
@pytest.mark.parametrize("of_a_run", [True, False], ids=["run", "folder"])
def test_a_set_is_named_as_evaluate_names_it(
    kind: str, of_a_run: bool, alone: Path, models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    network, data, words = ASKED[kind]
    folder = getattr(models, network) if of_a_run else alone / network
    measured = sourcewise.evaluate(str(folder), data, **words)
    diagnosis = sourcewise.diagnose(str(folder), data, **words)
    poor = next(f for f in diagnosis.findings if f.code == "OUT009")
    assert measured.metrics["verdict"].rstrip(".") in poor.evidence
    given = [part for name, value in words.items() for part in (f"--{name}", value)]
    assert main(["diagnose", str(folder), data, *given, "--json"]) == (diagnosis.verdict == "ill")
    said = json.loads(capsys.readouterr().out)
    assert [f["code"] for f in said["findings"]] == [f.code for f in diagnosis.findings]


def test_the_search_is_that_of_evaluate(alone: Path) -> None:
    options: dict[str, Any] = {"generation": {"beams": 1, "max_new_tokens": 1}}
    measured = sourcewise.evaluate(str(alone / "text"), "good.tsv", **options)
    found = sourcewise.diagnose(str(alone / "text"), "good.tsv", **options)
    poor = next(f for f in found.findings if f.code == "OUT009")
    assert measured.metrics["verdict"].rstrip(".") in poor.evidence


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("diagnose {text} --source question", "--source: goes with DATA: sourcewise diagnose "),
        ("diagnose {text} --max-new-tokens 9", "--max-new-tokens: goes with DATA: sourcewise diagnose "),
        ("diagnose digits --features features", "--features: a recipe names its data"),
        ("diagnose {text} good.tsv --source nothing", "good.tsv: no column 'nothing'"),
        ("diagnose {text} good.tsv --task nothing", "--task nothing: the model has no such task"),
        ("diagnose {features} good.tsv --features features", "good.tsv"),
    ],
)
def test_words_that_do_not_fit_are_refused(refused: Any, words: str, said: str) -> None:
    assert refused(words).startswith(said)


def test_in_the_library_too(models: Models) -> None:
    with pytest.raises(RequestError, match="target: goes with a set; name it"):
        sourcewise.diagnose(models.text, target="answer")


# ── what it was held against ──────────────────────────────────────────────────────────────────────────────────────────


def unheld(diagnosis: Any) -> list[str]:
    return [item for item in diagnosis.not_checked if "never held against the training data" in item]


def test_a_set_that_was_not_held_against_training_data_is_said_to_be_so(alone: Path, models: Models) -> None:
    (said,) = unheld(sourcewise.diagnose(alone / "text", "good.tsv"))
    assert "is no run folder" in said
    (said,) = unheld(sourcewise.diagnose(sourcewise.load(models.text), "good.tsv"))
    assert "is no run folder" in said
    (said,) = unheld(sourcewise.diagnose(models.text, "good.tsv"))
    assert "its data.valid is; this is good.tsv" in said
    (said,) = unheld(sourcewise.diagnose(models.features, "m.tsv", features="features"))
    assert "this is m.tsv" in said
    assert unheld(sourcewise.diagnose(models.text)) == []
    assert unheld(sourcewise.diagnose(models.text, sourcewise_valid(models.text))) == []


def sourcewise_valid(run: Path) -> str:
    """The file of a run's own validation set."""
    return str(run.parent.parent / "valid.tsv")


def test_nor_of_a_run_whose_training_data_is_gone(models: Models, tmp_path: Path) -> None:
    for name, keep in (("text", models.text), ("features", models.features)):
        shutil.copytree(keep, tmp_path / name)
        recipe = tmp_path / name / "recipe.yaml"
        text = recipe.read_text().replace("pairs.tsv", "gone.tsv")
        recipe.write_text(text.replace("m.tsv", "gone.tsv", 1))
        (said,) = unheld(sourcewise.diagnose(tmp_path / name))
        assert "which cannot be opened" in said
