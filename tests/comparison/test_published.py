"""The published comparisons, small: every variant of each is built and learns a step."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from sourcewise.api import prepare
from sourcewise.comparison.plan import load_comparison
from sourcewise.config.files import shipped_recipes
from sourcewise.training.run import Run

NAMES = [name for name in shipped_recipes() if name.startswith("compare_")]
DIMS = {"fsdd": 40, "phoenix14t": 96}
SMALL = {"train.batch_tokens": 600, "compare.seeds": [0]}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random features in the layout of fsdd and phoenix14t."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    words = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("a", "ei", "o", "au", "ich")]
    for name, dims in DIMS.items():
        (folder / name / "manifests").mkdir(parents=True)
        for split in ("train", "valid", "test"):
            features = folder / name / "features" / split
            features.mkdir(parents=True)
            lines = ["id\tn_frames\ttext"]
            for i in range(40):
                frames = int(rng.integers(20, 60))
                np.save(features / f"c{i}.npy", rng.standard_normal((frames, dims)).astype("float32"))
                lines.append(f"c{i}\t{frames}\t{' '.join(rng.choice(words, 5))}")
            (folder / name / "manifests" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_its_head_tells_the_command(name: str) -> None:
    head = shipped_recipes()[name].read_text(encoding="utf-8").split("\nname:")[0]
    assert f"sourcewise compare {name}" in head and "docs/results.md" in head
    assert load_comparison(name).name == name


@pytest.mark.parametrize("name", NAMES)
def test_every_variant_learns_a_step(name: str, root: Path) -> None:
    words = {} if "builtin" in shipped_recipes()[name].read_text(encoding="utf-8") else {"data.root": str(root)}
    comparison = load_comparison(name, SMALL | words | ({"data.vocabulary": 120} if words else {}))
    assert len(comparison.variants) >= 5 and len(load_comparison(name).planned) == 3 * len(comparison.variants)
    for planned in comparison.planned:
        training = prepare(planned.recipe, Run(planned.folder))
        training.learner.at.epoch_batches = 9
        training.learner.learn(training.learner.plan.batches(0)[:1])
        assert math.isfinite(training.learner.at.nats / training.learner.at.targets), planned.variant
        assert training.setup.test
