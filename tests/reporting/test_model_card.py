"""The model card of a run's best checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import sourcewise
from sourcewise.cli import main
from sourcewise.config.files import load_recipe
from sourcewise.diagnosis.diagnose import diagnose
from sourcewise.evaluation.results import Evaluation
from sourcewise.reporting.model_card import CARD_FILE
from sourcewise.training.run import Run
from tests.training.recipes import pairs_file, recipe


def card_of(folder: Path) -> str:
    return (folder / "checkpoints" / "best" / CARD_FILE).read_text(encoding="utf-8")


def header_of(card: str) -> dict[str, Any]:
    _, header, _ = card.split("---\n", 2)
    return dict(yaml.safe_load(header))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card")
    data = {"train": {"pairs": str(pairs_file(folder))}, "vocabulary": 64}
    data["valid"] = {"pairs": str(pairs_file(folder, "val|id.tsv", 24, 1))}
    made = recipe(folder, data=data, train__steps=4, train__evaluate_every=4, license="cc-by-4.0")
    trained = sourcewise.train(made)
    main(["report", str(trained.folder)])
    return trained.folder


def test_it_says_what_a_stranger_must_know(run: Path) -> None:
    card, measured = card_of(run), Evaluation.from_folder(run)
    assert f"| BLEU | {measured.metrics['bleu']:.2f}" in card and "| source bits |" in card
    for name in ("constant", "length", "copy", "this model"):
        assert f"| {name} |" in card
    assert "licence: cc-by-4.0" in card and "val|id.tsv" in card and "sourcewise train recipe.yaml" in card
    level = card.split("**")[1]
    assert level in ("failed", "below copying", "above copying", "undecided")
    found = [finding.code for finding in diagnose(run).findings]
    assert found and all(f"- **{code}, " in card for code in found)


def test_hubs_can_read_its_header(run: Path) -> None:
    header = header_of(card_of(run))
    assert header["license"] == "cc-by-4.0" and header["library_name"] == "sourcewise"
    results = header["model-index"][0]["results"][0]
    assert {each["type"] for each in results["metrics"]} >= {"bleu", "chrf", "wer"}
    assert results["dataset"]["name"].endswith("val|id.tsv")


def test_the_recipe_in_it_is_the_recipe(run: Path, tmp_path: Path) -> None:
    text = card_of(run).split("```yaml\n")[1].split("```")[0]
    (tmp_path / "recipe.yaml").write_text(text)
    again, own = load_recipe(tmp_path / "recipe.yaml"), Run(run).recipe
    assert again == own.model_copy(update={"output": again.output})  # where it was written is nobody's business


def test_without_a_licence_it_says_that_none_was_stated(run: Path) -> None:
    recipe_file = run / "recipe.yaml"
    recipe_file.write_text(recipe_file.read_text().replace("license: cc-by-4.0", "license: ''"))
    assert main(["report", str(run)]) == 0
    assert "licence: not stated" in card_of(run) and "license" not in header_of(card_of(run))


def test_a_run_without_a_checkpoint_has_none(run: Path, tmp_path: Path) -> None:
    for name in ("recipe.yaml", "metrics.json", "metrics.jsonl", "translations.tsv"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    assert main(["report", str(tmp_path)]) == 0
    assert not list(tmp_path.rglob(CARD_FILE))
