"""One diagnosis of a whole run: all that is still there is looked at, and the cause stands above what came of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import sourcewise
from sourcewise.cli import main
from sourcewise.config import Recipe
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.diagnosis.course import Course
from sourcewise.diagnosis.whole import of_course
from sourcewise.errors import RequestError
from sourcewise.training.run import Run
from tests.diagnosis.test_data_rules import recipe as pairs_recipe
from tests.diagnosis.test_data_rules import shuffled, translations

EOS = 1  # of the tokenizers that are trained here


def trained(folder: Path, train: Any, steps: int = 20, **options: Any) -> Run:
    """A tiny training of pairs; the pre-flight is left out, so that what is wrong gets its run."""
    tree = pairs_recipe(folder, train)
    tree |= {"output": str(folder / "runs"), "name": "run", "generation": {"beams": 1, "max_new_tokens": 60}}
    given = {"steps": steps, "threads": 1, "preflight": False, "log_every": 5, "evaluate_examples": 20} | options
    return sourcewise.train(Recipe.model_validate(tree | {"train": given}))


@pytest.fixture(scope="module")
def ill(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("ill"), shuffled(translations()))


def test_the_cause_in_the_data_stands_above_what_came_of_it(ill: Run) -> None:
    diagnosis = sourcewise.diagnose(ill.folder)
    codes = [finding.code for finding in diagnosis.findings]
    assert diagnosis.cause == codes[0] == "DAT003"
    assert len(codes) == len(set(codes)) > 2
    assert "TRN013" in codes  # after 20 steps: too short to judge, and so
    early = [f for f in diagnosis.findings if f.code[:3] in ("TRN", "SRC", "OUT", "MEM", "ATT")]
    assert {finding.level for finding in early} == {"note"}


def test_json_of_the_command_is_the_same(ill: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(ill.folder), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["cause"] == "DAT003" and list(answer) == ["verdict", "cause", "findings", "not_checked", "seconds"]


def test_with_data_of_ones_own_the_run_is_looked_at_all_the_same(ill: Run, tmp_path: Path) -> None:
    pairs_recipe(tmp_path, translations(60, 4))
    assert sourcewise.diagnose(ill.folder, str(tmp_path / "train.tsv")).cause == "DAT003"


def test_what_is_gone_is_said(ill: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(ill.folder, folder)
    recipe = (folder / "recipe.yaml").read_text().replace("train.tsv", "gone.tsv")
    (folder / "recipe.yaml").write_text(recipe)
    diagnosis = sourcewise.diagnose(folder)
    assert diagnosis.cause is None
    assert any("its training data and initial wiring" in item and "gone.tsv" in item for item in diagnosis.not_checked)
    shutil.rmtree(folder / "checkpoints")
    assert any("the trained network" in item for item in sourcewise.diagnose(folder).not_checked)
    (folder / "recipe.yaml").write_text("nonsense: true\n")
    assert any("the recipe: " in item for item in sourcewise.diagnose(folder).not_checked)


def test_outputs_of_a_run_have_their_sources_beside_them(ill: Run) -> None:
    assert not any("OUT008" in item for item in sourcewise.diagnose(ill.folder).not_checked)


def test_a_model_alone_says_what_it_cannot_know(ill: Run, tmp_path: Path) -> None:
    shutil.copytree(ill.best, tmp_path / "model")
    pairs_recipe(tmp_path, translations(60, 4))
    diagnosis = sourcewise.diagnose(tmp_path / "model", str(tmp_path / "train.tsv"))
    assert any("the course of training" in item for item in diagnosis.not_checked)
    with pytest.raises(RequestError, match="name one: sourcewise diagnose MODEL DATA"):
        sourcewise.diagnose(tmp_path / "model")


@pytest.fixture
def alone(ill: Run, tmp_path: Path) -> Path:
    """A folder as others save theirs, and beside it pairs.tsv."""
    shutil.copytree(ill.best, tmp_path / "model")
    pairs_recipe(tmp_path, translations(60, 4))
    (tmp_path / "train.tsv").rename(tmp_path / "pairs.tsv")
    return tmp_path / "model"


def codes(folder: Path) -> list[str]:
    found = sourcewise.diagnose(folder, str(folder.parent / "pairs.tsv")).findings
    return [finding.code for finding in found if finding.level != "note"]


def test_a_folder_with_the_tokenizer_of_another_training(alone: Path) -> None:
    assert not {"DAT006", "WIR010"} & set(codes(alone))
    cyrillic = ["".join(chr(0x430 + (i * k) % 32) for k in (3, 5, 7, 11)) for i in range(500)]
    Tokenizer.train(cyrillic, 64).save(alone)
    assert codes(alone)[0] == "DAT006"


@pytest.mark.parametrize(("start", "said"), [(20, "is a piece of text"), (EOS, "begins with its padding")])
def test_a_folder_whose_start_token_was_changed(alone: Path, start: int, said: str) -> None:
    for name in ("config.json", "generation_config.json"):
        options = json.loads((alone / name).read_text())
        (alone / name).write_text(json.dumps(options | {"decoder_start_token_id": start}))
    diagnosis = sourcewise.diagnose(alone, str(alone.parent / "pairs.tsv"))
    finding = next(finding for finding in diagnosis.findings if finding.code == "WIR010")
    assert said in finding.evidence
    assert codes(alone)[0] == "WIR010"


def test_a_course_that_is_not_there_or_not_over_is_said() -> None:
    assert "no metrics.jsonl" in of_course(Course.read([])).not_checked[0]
    lines = [{"kind": "start", "step": 0, "steps": 100}]
    lines += [{"kind": "train", "step": 10, "loss": 3.0, "learning_rate": 1e-3, "gradient_norm": 1.0}]  # type: ignore[dict-item]
    said = of_course(Course.read(lines)).not_checked
    assert any("no evaluation" in item for item in said) and any("step 10 of 100" in item for item in said)
