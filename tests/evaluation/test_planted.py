"""Systems that are none: each is recognised for what it is, on real sets, by whatever metric."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sourcewise.baselines.measure import Baselines, take
from sourcewise.config import DatasetConfig
from sourcewise.data.examples import Dataset
from sourcewise.data.open import open_dataset
from sourcewise.evaluation.verdict import Verdict, judge, judging_metric
from sourcewise.metrics.measure import Measure
from sourcewise.metrics.outputs import output_metrics

BUILTIN = ("dates", "digits")
ON_DISK = ("fsdd", "phoenix14t", "multi30k")


def on_disk(name: str) -> tuple[DatasetConfig, DatasetConfig]:
    """Training and validation set of the benchmark data, as its prepare.py unpacks them."""
    folder = Path(os.environ.get("SOURCEWISE_PREPARED") or "data") / name
    if not folder.is_dir():
        pytest.skip(f"no {folder}: set SOURCEWISE_PREPARED to the folder that prepare.py wrote")
    if name == "multi30k":
        return DatasetConfig(pairs=str(folder / "train.tsv")), DatasetConfig(pairs=str(folder / "valid.tsv"))
    parts = [(str(folder / "manifests" / f"{s}.tsv"), str(folder / "features" / s)) for s in ("train", "valid")]
    return tuple(DatasetConfig(manifest=m, features=f, target="text") for m, f in parts)  # type: ignore[return-value]


def sets(name: str) -> tuple[Dataset, Dataset]:
    if name in BUILTIN:
        train, valid = DatasetConfig(builtin=name, limit=3000), DatasetConfig(builtin=name)
    else:
        train, valid = on_disk(name)
    return open_dataset(train, None, "train"), open_dataset(valid, None, "valid")


@pytest.fixture(scope="module", params=[*BUILTIN, *(pytest.param(n, marks=pytest.mark.slow) for n in ON_DISK)])
def taken(request: pytest.FixtureRequest) -> tuple[str, Dataset, Baselines]:
    train, valid = sets(request.param)
    found = take(valid, [train], Measure(judging_metric([example.target for example in valid])))
    assert found is not None
    return request.param, train, found


def judged(found: Baselines, outputs: Sequence[str]) -> Verdict:
    metrics = output_metrics(found.references, outputs, [True] * len(outputs))
    metrics |= {"judged_by": found.metric, "baselines": found.against(outputs)}
    return judge(metrics, found.references, outputs)


def test_copying_is_below_copying(taken: tuple[str, Dataset, Baselines]) -> None:
    name, _, found = taken
    said = judged(found, found.texts["copy"])
    if name == "dates":  # no day of training is in valid: not one copied date is right
        assert said.level == "failed" and "exactly right 0.0 %" in said.text
        return
    assert said.level == "below copying", said.text
    assert "not above copying the target of the nearest training source" in said.text


def test_a_constant_fails(taken: tuple[str, Dataset, Baselines]) -> None:
    _, train, found = taken
    for constant in (found.texts["constant"][0], train[17].target):
        said = judged(found, [constant] * len(found.references))
        assert said.level == "failed" and "not above one output for every source" in said.text


def test_targets_of_the_right_length_fail(taken: tuple[str, Dataset, Baselines]) -> None:
    _, train, found = taken
    rng = np.random.default_rng(3)
    by_length: dict[int, list[str]] = {}
    for example in train:
        by_length.setdefault(len(example.target.split()), []).append(example.target)
    outputs = [str(rng.choice(by_length.get(len(r.split()), [train[0].target]))) for (r,) in found.references]
    said = judged(found, outputs)
    assert said.level == "failed" and "not above" in said.text.split(";")[0], said.text


def test_what_is_mostly_right_is_above_copying(taken: tuple[str, Dataset, Baselines]) -> None:
    name, train, found = taken
    outputs = [r if i % 10 else train[i].target for i, (r,) in enumerate(found.references)]
    assert judged(found, outputs).level == "above copying", name


FIGURES = {"constant": 3.8, "length": 3.1, "copy": 12.7}


@pytest.mark.slow
def test_phoenix14t_has_the_figures_that_were_measured_by_hand(taken: tuple[str, Dataset, Baselines]) -> None:
    name, _, found = taken
    if name != "phoenix14t":
        pytest.skip("of another set")
    beside = found.against([r for (r,) in found.references])
    assert {n: round(beside[n]["bleu"], 1) for n in FIGURES} == pytest.approx(FIGURES, abs=0.3)
    assert beside["copy"]["chrf"] == pytest.approx(36.5, abs=0.7)
