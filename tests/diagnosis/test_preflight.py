"""`sourcewise diagnose RECIPE`: the recipe is opened, nothing is written, and the answer has the contract's form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import sourcewise
from sourcewise.cli import main
from sourcewise.config.files import is_recipe
from tests.commands import tree
from tests.diagnosis.test_data_rules import recipe, shuffled, translations


@pytest.fixture
def ill(tmp_path: Path) -> Path:
    """The file of a recipe whose targets are shuffled."""
    path = tmp_path / "ill.yaml"
    path.write_text(yaml.safe_dump(recipe(tmp_path, shuffled(translations()))), encoding="utf-8")
    return path


def test_a_recipe_that_is_ill_exits_1_and_names_the_cause(ill: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(ill.parent)
    assert main(["diagnose", str(ill)]) == 1
    assert "the cause: DAT003" in capsys.readouterr().out
    assert tree(ill.parent) == before


def test_json_has_the_keys_of_a_model_s(ill: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(ill), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert list(answer) == ["verdict", "cause", "findings", "not_checked", "seconds"]
    assert answer["cause"] == "DAT003"
    assert any("take a trained model" in item for item in answer["not_checked"])


def test_a_shipped_recipe_with_options_exits_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", "digits", "--data.train.limit", "300", "--model.d_model", "32"]) == 0
    assert "healthy" in capsys.readouterr().out


def test_the_library_says_the_same(ill: Path) -> None:
    assert sourcewise.preflight(ill).cause == "DAT003"
    assert sourcewise.preflight("digits", {"data.train.limit": 300}).verdict == "healthy"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["digits", "valid.tsv"], "valid.tsv: a recipe names its data; set --data.valid.pairs FILE"),
        (["digits", "--data.max_targt", "3"], "--data.max_targt: unknown key; did you mean --data.max_target?"),
        (["runs/x", "--train.steps", "3"], "--train.steps: goes with a recipe; runs/x is none"),
        (["no.yaml"], "no.yaml: no such recipe"),
    ],
)
def test_what_is_refused(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", *words]) == 2
    assert told in capsys.readouterr().err


def test_a_run_of_a_recipe_s_name_is_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_recipe("digits") and is_recipe("mine.yaml") and not is_recipe("t5-small")
    (tmp_path / "digits").mkdir()
    assert not is_recipe("digits")
