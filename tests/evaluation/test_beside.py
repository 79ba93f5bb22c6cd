"""Every evaluation has its baselines: of runs, of other models, of mixtures, in trainings; and all that shows them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import sourcewise
from sourcewise.baselines import cache
from sourcewise.cli import main
from sourcewise.data.readers.pairs import HUB
from sourcewise.evaluation.beside import baselines_for
from sourcewise.evaluation.evaluate import lay_out
from sourcewise.evaluation.results import Evaluation
from sourcewise.evaluation.verdict import verdict_of
from sourcewise.reporting.report import write_report
from tests.commands import Models
from tests.reporting.test_report import Page
from tests.training.recipes import SPOKEN, WORDS, pairs_file, recipe

LEAST = {"train__steps": 2, "train__evaluate_every": 2}


@pytest.fixture
def test_set(tmp_path: Path) -> Path:
    return pairs_file(tmp_path, "test.tsv", 30, 5)


def test_evaluate_prints_and_writes_them(
    models: Models, test_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(models.text), str(test_set), "-o", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out.splitlines()
    table = {line.split("\t")[0]: line.split("\t")[1:] for line in printed if "\t" in line}
    assert table["baseline"] == ["exact %", "BLEU", "chrF", "WER", "model above it"]
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    for name in ("constant", "length", "copy"):
        found = figures["baselines"][name]
        low, high = found["exact_match_pct_ci95"]
        assert table[name][0] == f"{found['exact_match_pct']:.1f} [{low:.1f}, {high:.1f}]"
        assert table[name][1] == f"{found['bleu']:.2f}"
    assert any(line.startswith("from 1,500 training examples (") and "copied by TF-IDF" in line for line in printed)
    assert figures["baselines"]["copy"]["exact_match_pct"] > 80  # most sources are in the training set
    assert figures["judged_by"] == "exact_match_pct" and figures["verdict"].startswith("not above one output")
    assert printed[-1].startswith("failed")


def test_a_requirement_may_name_the_place(models: Models, test_set: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(models.text), str(test_set), "--require", "above_copying>0"]) == 1
    assert "required above_copying>0, but above_copying is -" in capsys.readouterr().err


def test_they_are_kept_in_the_run(models: Models, test_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sourcewise.evaluate(models.text, test_set).metrics["baselines"]
    files = len(list((models.text / cache.FOLDER).iterdir()))
    monkeypatch.setattr(cache, "take", lambda *_: pytest.fail("taken again"))
    assert sourcewise.evaluate(models.text, test_set).metrics["baselines"] == first
    best = sourcewise.evaluate(models.text / "checkpoints" / "best", test_set)  # the same run by another name
    assert best.metrics["baselines"] == first and len(list((models.text / cache.FOLDER).iterdir())) == files


def test_other_training_data_give_other_baselines(tmp_path: Path, test_set: Path) -> None:
    run = sourcewise.train(recipe(tmp_path, **LEAST))
    before = sourcewise.evaluate(run.folder, test_set).metrics["baselines"]
    rows = "".join(f"{' '.join(WORDS[:3])} {i}\tno {i}\n" for i in range(50))
    (tmp_path / "pairs.tsv").write_text("source\ttarget\n" + rows)
    after = sourcewise.evaluate(run.folder, test_set).metrics["baselines"]
    assert after["copy"]["exact_match_pct"] == 0 < before["copy"]["exact_match_pct"]
    assert after["taken_from"].startswith("50 training examples")


@pytest.mark.parametrize("gone", ["file", "column", "folder of features"])
def test_where_the_training_data_are_gone_it_is_said(models: Models, gone: str, tmp_path: Path) -> None:
    of_features = gone == "folder of features"
    folder = tmp_path / "run"
    shutil.copytree(models.features if of_features else models.text, folder)
    text = (folder / "recipe.yaml").read_text()
    old = "features: " if of_features else "pairs.tsv"
    changed = {"file": "gone.tsv", "column": "bad.tsv", "folder of features": "features: /nowhere"}[gone]
    data = models.features.parent.parent
    (data / "bad.tsv").write_text("a\tb\nx\ty\n")
    (folder / "recipe.yaml").write_text(text.replace(old, changed, 1))
    if of_features:
        found = sourcewise.evaluate(folder, data / "m.tsv", features=str(data / "features"))
    else:
        found = sourcewise.evaluate(folder, data / "valid.tsv")
    said = found.metrics["baselines"]["taken_from"]
    assert said.startswith("the other ") and "the training data cannot be opened: " in said


def test_of_another_model_they_are_of_the_set_itself(models: Models, tmp_path: Path, test_set: Path) -> None:
    shutil.copytree(models.text / "checkpoints" / "best", tmp_path / "alone")
    found = sourcewise.evaluate(tmp_path / "alone", test_set).metrics
    expected = "the other 29 examples of this set, leaving each one out (the training data are not known)"
    assert found["baselines"]["taken_from"] == expected
    assert not (tmp_path / "alone" / cache.FOLDER).exists()


def test_a_hub_set_is_not_fetched_again(models: Models, test_set: Path) -> None:
    model = sourcewise.load(models.text)
    named = model.data.model_copy(update={"train": model.data.sets("train")[0].model_copy(update={"pairs": f"{HUB}x"})})
    (found,) = baselines_for(lay_out(model, test_set), named)
    assert found is not None and "hub:x is not fetched again" in found.taken_from


def test_features_stand_beside_clips(models: Models, tmp_path: Path) -> None:
    data = models.features.parent.parent
    found = sourcewise.evaluate(models.features, data / "m.tsv", features=str(data / "features")).metrics
    assert found["baselines"]["copy"]["exact_match_pct"] == 100  # the set is the training set
    assert found["baselines"]["taken_from"].startswith("3 training examples")


def test_a_single_example_has_none(models: Models, tmp_path: Path) -> None:
    shutil.copytree(models.text / "checkpoints" / "best", tmp_path / "alone")
    one = tmp_path / "one.tsv"
    one.write_text("source\ttarget\nba do\tone two\n")
    found = sourcewise.evaluate(tmp_path / "alone", one).metrics
    assert "baselines" not in found and found["verdict"].startswith("no baselines")


def mixture(folder: Path) -> dict:
    """Two tasks, translation and a label for each text, each with its own metric."""
    rng = np.random.default_rng(0)
    rows = [" ".join(rng.choice(WORDS, 3)) for _ in range(300)]
    files = {}
    for split, part in (("train", rows[:250]), ("valid", rows[250:])):
        for task in ("say", "sort"):
            path = folder / split / f"{task}.tsv"
            path.parent.mkdir(exist_ok=True)
            pairs = [(r, SPOKEN[WORDS.index(r.split()[0])] if task == "sort" else r.upper()) for r in part]
            path.write_text("source\ttarget\n" + "".join(f"{s}\t{t}\n" for s, t in pairs))
            config = {
                "pairs": str(path),
                "prefix": f"{task}: ",
                "metric": {"say": "wer", "sort": "exact_match_pct"}[task],
            }
            files.setdefault(split, []).append(config)
    return {**files, "vocabulary": 64}


def test_each_task_of_a_mixture_has_its_own(tmp_path: Path) -> None:
    run = sourcewise.train(recipe(tmp_path, data=mixture(tmp_path), **LEAST))
    assert run.evaluation is not None
    metrics = run.evaluation.metrics
    say, sort = (metrics["tasks"][name]["baselines"] for name in ("say", "sort"))
    assert (say["metric"], sort["metric"]) == ("wer", "exact_match_pct")
    assert say["taken_from"].startswith("250 training examples") and "say.tsv" in say["taken_from"]
    assert sort["constant"]["text"] in SPOKEN and say["constant"]["text"].isupper()
    assert metrics["baselines"]["metric"] == metrics["judged_by"]
    assert metrics["verdict"].startswith(("say: not above", "sort: not above"))


def test_trainings_stand_beside_them_at_each_evaluation(tmp_path: Path) -> None:
    run = sourcewise.train(recipe(tmp_path, train__steps=4, train__evaluate_every=2, train__best="wer"))
    lines = [line for line in run.metrics() if line["kind"] == "evaluation"]
    assert len(lines) == 2
    copies = [line["baselines"]["copy"]["exact_match_pct"] for line in lines]
    assert copies[0] == copies[1] > 0 and all("verdict" in line for line in lines)


@pytest.mark.pages
def test_the_report_shows_them(models: Models, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(models.text, folder)
    said = Page(write_report(folder).read_text()).text("verdict")
    found = json.loads((folder / "metrics.json").read_text())["baselines"]
    for name in ("constant", "length", "copy"):
        assert f"{found[name]['exact_match_pct']:.1f}" in said and name in said
    assert found["taken_from"] in said and "failed" in said


def test_diagnose_is_never_healthy_where_evaluate_says_failed(models: Models, test_set: Path) -> None:
    found = sourcewise.evaluate(models.text, test_set)
    verdict = verdict_of(found)
    assert verdict is not None and verdict.level == "failed"
    diagnosis = sourcewise.diagnose(models.text, test_set)
    (poor,) = [f for f in diagnosis.findings if f.code == "OUT009"]
    assert verdict.text.rstrip(".") in poor.evidence


def test_a_folder_keeps_the_verdict(models: Models, test_set: Path, tmp_path: Path) -> None:
    found = sourcewise.evaluate(models.text, test_set)
    found.write(tmp_path / "out")
    kept = verdict_of(Evaluation.from_folder(tmp_path / "out"))
    assert kept is not None and kept.text == found.metrics["verdict"]
