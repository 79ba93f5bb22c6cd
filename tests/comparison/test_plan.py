"""Recipes that compare: which trainings they plan, and what is said of one that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from sourcewise.comparison.finished import changed_key
from sourcewise.comparison.plan import load_comparison
from sourcewise.config.files import load_recipe
from sourcewise.errors import RequestError

SHARED = "name: many\noutput: out\ndata: {train: {pairs: a.tsv}}\ntrain: {best: wer}\n"


def written(folder: Path, compare: str, shared: str = SHARED) -> Path:
    path = folder / "many.yaml"
    path.write_text(shared + compare)
    return path


def refused(folder: Path, compare: str, overrides: dict[str, object] | None = None) -> str:
    with pytest.raises(RequestError) as error:
        load_comparison(written(folder, compare), overrides)
    return str(error.value).replace(str(folder / "many.yaml"), "FILE")


def test_every_variant_is_planned_with_every_seed_one_seed_after_the_other(tmp_path: Path) -> None:
    compare = """
compare:
  seeds: [3, 5]
  variants:
    plain:
    wide: {model.d_model: 512, model: {bridge: {kind: perceiver}}}
    other: {data.train: {pairs: b.tsv}}
"""
    comparison = load_comparison(written(tmp_path, compare), {"train.steps": 7})
    assert [each.name for each in comparison.planned] == [
        "plain-3",
        "wide-3",
        "other-3",
        "plain-5",
        "wide-5",
        "other-5",
    ]
    assert comparison.metric == "wer" and comparison.folder == Path("out/many")
    assert comparison.changes["wide"] == {"model.d_model": 512, "model.bridge.kind": "perceiver"}
    wide = comparison.of("wide")[1].recipe
    assert (wide.seed, wide.model.d_model, wide.model.bridge.kind, wide.train.steps) == (5, 512, "perceiver", 7)
    assert comparison.of("plain")[0].recipe.model == load_recipe(None, {"train.best": "wer"}).model
    assert str(comparison.of("wide")[0].folder) == "out/many/wide-3"
    other = comparison.of("other")[0].recipe.data.train
    assert other is not None and not isinstance(other, list) and other.pairs == "b.tsv"


def test_a_key_that_is_wrong_is_told_with_its_variant(tmp_path: Path) -> None:
    def variant(keys: str) -> str:
        return refused(tmp_path, f"compare: {{variants: {{plain: , odd: {keys}}}}}\n")

    assert variant("{train.stepps: 3}") == "FILE: variant odd: train.stepps: unknown key; did you mean train.steps?"
    assert variant("{model.d_model: x}").startswith("FILE: variant odd: model.d_model should be a valid integer")
    assert variant("{seed: 3}").startswith("FILE: variant odd: seed is of the whole comparison")
    unequal = variant("{evaluation.lowercase: true}")  # its figures would not be those of the others
    assert unequal.startswith("FILE: variant odd: evaluation is of the whole comparison")
    assert variant("{train.steps.x: 3}").startswith("FILE: variant odd: train.steps should be a valid integer")
    assert variant("3") == "FILE: compare.variants.odd should be a valid dictionary, not 3"


def test_what_is_wrong_with_the_section_or_the_shared_keys_is_told(tmp_path: Path) -> None:
    assert refused(tmp_path, "") == (
        "FILE: has no compare section; give it compare.variants, or train it: sourcewise train"
    )
    assert refused(tmp_path, "compare: {variants: {}}").startswith("FILE: compare.variants: names no variant")
    assert refused(tmp_path, "compare: {variants: {a/b: }}").startswith("FILE: compare.variants: 'a/b' names a folder")
    assert "compare.seeds: seed 1 is given twice" in refused(tmp_path, "compare: {seeds: [1, 1], variants: {a: }}")
    assert "compare.seeds should have at least one entry" in refused(tmp_path, "compare: {seeds: [], variants: {a: }}")
    assert "did you mean compare.seeds?" in refused(tmp_path, "compare: {seedz: [1], variants: {a: }}")
    assert refused(tmp_path, "model: {d_model: x}\ncompare: {variants: {a: }}").startswith("FILE: model.d_model should")
    told = refused(tmp_path, "compare: {variants: {a: {train.steps: 3}}}", {"train.steps": 5})
    assert told == "--train.steps: variant a sets train.steps; change it in the recipe"


def test_the_figure_that_decides_is_measured_in_every_training(tmp_path: Path) -> None:
    compare = (
        "compare: {seeds: [0], metric: ter, variants: {a: , b: {train.steps: 5}}}\nevaluation: {metrics: [rouge_l]}"
    )
    planned = load_comparison(written(tmp_path, compare)).planned
    assert [each.recipe.evaluation.metrics for each in planned] == [["rouge_l", "ter"]] * 2


def test_train_says_to_compare(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="compares several trainings; run it with: sourcewise compare"):
        load_recipe(written(tmp_path, "compare: {variants: {a: }}"))


def test_a_run_is_of_the_same_training_whatever_its_threads_and_place(tmp_path: Path) -> None:
    (planned,) = load_comparison(written(tmp_path, "compare: {seeds: [0], variants: {a: }}")).planned
    elsewhere = planned.recipe.model_copy(update={"output": "moved", "name": "b"})
    threads = elsewhere.train.model_copy(update={"threads": 7})
    assert changed_key(planned, elsewhere.model_copy(update={"train": threads})) is None
    assert changed_key(planned, elsewhere.model_copy(update={"seed": 1})) == "seed 1, now 0"
