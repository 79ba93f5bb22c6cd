"""The baselines of a set beside outputs, small and odd sets, and the files that keep them."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sourcewise.baselines import cache
from sourcewise.baselines.cache import take_or_read
from sourcewise.baselines.measure import NAMES, Baselines, joined, take
from sourcewise.data.examples import Dataset
from sourcewise.figures import FIGURES, Figure
from sourcewise.metrics.counting import Counting, bleu_score, word_error_rate
from sourcewise.metrics.measure import Measure
from tests.baselines.sets import clips, texts, translations

TRAIN, TEST = texts(translations(500), "train"), texts(translations(120, seed=1), "test")
REFERENCES = [example.target for example in TEST]


@pytest.fixture(scope="module")
def taken() -> Baselines:
    found = take(TEST, [TRAIN], Measure("bleu"))
    assert found is not None
    return found


def test_scores_are_those_of_the_texts(taken: Baselines) -> None:
    found = taken.against(REFERENCES)
    for name in NAMES:
        assert found[name]["bleu"] == bleu_score(REFERENCES, taken.texts[name])[0]
        assert found[name]["wer"] == word_error_rate(REFERENCES, taken.texts[name])
        low, high = found[name]["bleu_ci95"]
        assert low <= found[name]["bleu"] <= high and found[name].keys() > {"chrf", "exact_match_pct"}
    assert found["constant"]["text"] == taken.texts["constant"][0] and len(set(taken.texts["constant"])) == 1
    assert found["outputs"]["bleu"] == pytest.approx(100) and taken.taken_from == "500 training examples (train)"


def test_copying_is_above_the_others_where_sources_tell_targets(taken: Baselines) -> None:
    found = taken.against(taken.texts["copy"])
    assert found["constant"]["difference_ci95"][0] > 0 and found["length"]["difference_ci95"][0] > 0
    assert found["copy"]["difference"] == 0 and found["copy"]["difference_ci95"] == [0, 0]
    assert all(found[name]["can_tell"] for name in NAMES)


def test_differences_are_paired(taken: Baselines) -> None:
    """Outputs that are those of a baseline but for a few better ones are above it, though neither is sure by itself."""
    outputs = [r if i % 17 == 0 else c for i, (r, c) in enumerate(zip(REFERENCES, taken.texts["copy"], strict=True))]
    found = taken.against(outputs)
    assert found["copy"]["difference_ci95"][0] > 0
    worse = [c if i % 17 else "" for i, c in enumerate(taken.texts["copy"])]
    assert taken.against(worse)["copy"]["difference_ci95"][1] < 0


def test_of_several_references_each_counts_for_baselines_too() -> None:
    rows = [dataclasses.replace(row, others=(f"{row.target} indeed",)) for row in TEST]
    found = take(dataclasses.replace(TEST, examples=rows), [TRAIN], Measure("bleu"))
    assert found is not None
    beside = found.against([f"{text} indeed" for text in REFERENCES])
    assert beside["outputs"]["bleu_ci95"] == pytest.approx([100, 100])
    wanted = [row.references for row in rows]
    assert all(beside[name]["bleu"] == bleu_score(wanted, found.texts[name])[0] for name in NAMES)


def test_baselines_are_counted_as_the_outputs_are() -> None:
    shouted = texts([(s, t.upper()) for s, t in translations(120, seed=1)], "test")
    cased, lower = (take(shouted, [TRAIN], Measure("bleu", Counting(lowercase=on))) for on in (False, True))
    assert cased is not None and lower is not None
    assert cased.against(REFERENCES)["copy"]["bleu"] == 0 < lower.against(REFERENCES)["copy"]["bleu"]


def test_where_lower_is_better_differences_are_turned() -> None:
    found = take(TEST, [TRAIN], Measure("wer"))
    assert found is not None
    beside = found.against(REFERENCES)
    assert beside["copy"]["difference"] == pytest.approx(beside["copy"]["wer"]) and beside["copy"]["difference"] > 0


def first_word(outputs: Sequence[str], references: Sequence[str]) -> float:
    return 100 * sum(o.split()[:1] == r.split()[:1] for o, r in zip(outputs, references, strict=True)) / len(outputs)


def test_a_figure_of_a_plug_in_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FIGURES, "first", Figure("first", "first", better="higher", range=(0, 100), measure=first_word))
    found = take(TEST, [TRAIN], Measure("first"))
    assert found is not None
    beside = found.against(REFERENCES)
    assert beside["copy"]["first"] == first_word(found.texts["copy"], REFERENCES) and beside["copy"]["can_tell"]
    assert beside["copy"]["difference"] == 100 - beside["copy"]["first"]

    def broken(outputs: Sequence[str], references: Sequence[str]) -> float:
        raise RuntimeError("no")

    monkeypatch.setitem(FIGURES, "bad", Figure("bad", "bad", better="higher", range=(0, 100), measure=broken))
    with pytest.warns(Warning, match="bad"):
        unmeasured = take(TEST, [TRAIN], Measure("bad"))
        assert unmeasured is not None
        assert "difference" not in unmeasured.against(REFERENCES)["copy"]


def test_without_training_data_each_example_is_left_out() -> None:
    found = take(TEST, [], Measure("bleu"))
    assert found is not None and found.taken_from.startswith("the other 119 examples of this set")
    unique = {text for text in REFERENCES if REFERENCES.count(text) == 1}
    for name in NAMES:
        assert not any(given == own for given, own in zip(found.texts[name], REFERENCES, strict=True) if own in unique)
    assert "file is gone" in take(TEST, [], Measure("bleu"), "file is gone").taken_from  # type: ignore[union-attr]


ODD = {
    "two examples": [("a b", "c d"), ("e f", "g h")],
    "one target": [(f"s{i}", "the same") for i in range(12)],
    "all sources equal": [("s", f"target {i} of some") for i in range(12)],
    "no sources": [("", f"target {i} of some") for i in range(12)],
    "empty targets": [(f"s{i} x", "" if i % 2 else "one two three four") for i in range(12)],
    "labels": [(f"s{i % 3} x{i}", ("yes", "no", "maybe")[i % 3]) for i in range(12)],
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("known", [True, False])
def test_odd_sets(kind: str, known: bool) -> None:
    dataset = texts(ODD[kind])
    metric = "exact_match_pct" if kind == "labels" else "bleu"
    found = take(dataset, [dataset] if known else [], Measure(metric))
    assert found is not None
    beside = found.against([example.target for example in dataset])
    assert json.dumps(beside) and set(NAMES) < set(beside)
    if kind == "one target":
        assert not beside["constant"]["can_tell"]
    if kind == "labels":
        assert found.texts["copy"] == [example.target for example in dataset]  # the nearest has the same label
        assert beside["constant"]["exact_match_pct"] == pytest.approx(100 / 3)


def test_one_example_has_no_baselines_of_its_own() -> None:
    assert take(texts([("a", "b")]), [], Measure("bleu")) is None
    found = take(texts([("a", "b c d e")]), [texts([("a", "x y z v")])], Measure("bleu"))
    assert found is not None and found.texts["copy"] == ["x y z v"]


def test_a_mixture_is_joined() -> None:
    one, other = take(TEST, [TRAIN], Measure("bleu")), take(texts(ODD["labels"]), [], Measure("exact_match_pct"))
    both = joined([one, other], "chrf")
    assert both is not None and both.metric == "chrf" and len(both.references) == 132
    assert "500 training examples" in both.taken_from and "the other 11" in both.taken_from
    assert joined([one, None], "bleu") is None and joined([one], "bleu") is one


# ── kept in a run ─────────────────────────────────────────────────────────────────────────────────────────────────────


def changed(dataset: Dataset, kind: str) -> Dataset:
    pairs = [(example.source, example.target) for example in dataset]
    if kind == "source":
        pairs[7] = (pairs[7][0] + "x", pairs[7][1])
    elif kind == "target":
        pairs[7] = (pairs[7][0], pairs[7][1] + "x")
    elif kind == "order":
        random.Random(0).shuffle(pairs)
    elif kind == "one less":
        pairs.pop()
    return texts(pairs, dataset.name)


def test_they_are_kept_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = take_or_read(TEST, [TRAIN], Measure("bleu"), run=tmp_path)
    monkeypatch.setattr(cache, "take", lambda *_: pytest.fail("taken again"))
    assert take_or_read(TEST, [TRAIN], Measure("bleu"), run=tmp_path) == first


@pytest.mark.parametrize("kind", ["source", "target", "order", "one less"])
@pytest.mark.parametrize("side", ["train", "test"])
def test_a_stale_file_is_never_used(tmp_path: Path, kind: str, side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    take_or_read(TEST, [TRAIN], Measure("bleu"), run=tmp_path)
    train = changed(TRAIN, kind) if side == "train" else TRAIN
    test = changed(TEST, kind) if side == "test" else TEST
    assert take_or_read(test, [train], Measure("bleu"), run=tmp_path) == take(test, [train], Measure("bleu"))
    assert len(list((tmp_path / cache.FOLDER).iterdir())) == 2


def test_another_way_of_counting_or_another_reference_makes_it_stale(tmp_path: Path) -> None:
    take_or_read(TEST, [TRAIN], Measure("bleu"), run=tmp_path)
    take_or_read(TEST, [TRAIN], Measure("bleu", Counting(lowercase=True)), run=tmp_path)
    rows = [dataclasses.replace(row, others=("another",)) for row in TEST]
    take_or_read(dataclasses.replace(TEST, examples=rows), [TRAIN], Measure("bleu"), run=tmp_path)
    assert len(list((tmp_path / cache.FOLDER).iterdir())) == 3


def test_one_number_of_one_matrix_makes_it_stale(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    matrices = [rng.standard_normal((5, 4)).astype(np.float32) for _ in range(12)]
    dataset = clips(matrices, [f"text {i}" for i in range(12)])
    take_or_read(dataset, [], Measure("bleu"), run=tmp_path)
    matrices[3][2, 1] += 1e-3
    take_or_read(dataset, [], Measure("bleu"), run=tmp_path)
    assert len(list((tmp_path / cache.FOLDER).iterdir())) == 2


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"texts": {}}', "null"])
def test_a_damaged_file_is_taken_anew(tmp_path: Path, damage: str) -> None:
    first = take_or_read(TEST, [TRAIN], Measure("bleu"), run=tmp_path)
    (path,) = (tmp_path / cache.FOLDER).iterdir()
    path.write_text(damage)
    assert take_or_read(TEST, [TRAIN], Measure("bleu"), run=tmp_path) == first
    assert json.loads(path.read_text())["metric"] == "bleu"


def test_few_files_are_kept(tmp_path: Path) -> None:
    for i in range(cache.KEPT + 3):
        take_or_read(texts([(f"s{i}", "a"), ("t", "b")]), [], Measure("bleu"), run=tmp_path)
    assert len(list((tmp_path / cache.FOLDER).iterdir())) == cache.KEPT


def test_a_folder_that_cannot_be_written_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / cache.FOLDER).write_text("a file is in the way")
    assert take_or_read(TEST, [TRAIN], Measure("bleu"), run=tmp_path) is not None
    assert take_or_read(TEST, [TRAIN], Measure("bleu"), run=tmp_path / "gone") is not None


def test_large_sets_are_read_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sourcewise.baselines.measure.MOST_TEXTS", 50)
    found = take(TEST, [TRAIN], Measure("bleu"))
    assert found is not None and found.taken_from == "50 of 500 training examples (train)"
