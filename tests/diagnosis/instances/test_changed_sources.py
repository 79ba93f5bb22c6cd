"""A trained network whose sources come otherwise than in training: the one change is named, a harmless one is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sourcewise
from sourcewise.config import Recipe

BANDS, SIGN = 8, 6
WORDS = ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben"]


def clips(
    folder: Path, count: int, seed: int, change: Callable[[np.ndarray], np.ndarray] | None = None
) -> dict[str, Any]:
    """Three or four signs of six frames each, numbers from 0 to 1."""
    draw = np.random.default_rng(seed)
    signs = np.random.default_rng(5).random((len(WORDS), SIGN, BANDS))
    (folder / "frames").mkdir(parents=True)
    lines = ["id\ttext"]
    for i in range(count):
        said = draw.integers(0, len(WORDS), draw.integers(3, 5))
        frames = np.concatenate([signs[k] for k in said]) + 0.03 * draw.normal(size=(SIGN * len(said), BANDS))
        np.save(folder / "frames" / f"{i}.npy", (frames if change is None else change(frames)).astype(np.float32))
        lines.append(f"{i}\t{' '.join(WORDS[k] for k in said)}")
    (folder / "set.tsv").write_text("\n".join(lines) + "\n")
    return {"manifest": str(folder / "set.tsv"), "features": str(folder / "frames")}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signs")
    data = {"train": clips(folder / "train", 700, 1), "valid": clips(folder / "valid", 64, 2), "vocabulary": 40}
    small = {"d_model": 48, "d_ff": 96, "heads": 4, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0}
    train = {"steps": 350, "batch_tokens": 1024, "learning_rate": 4e-3, "warmup_steps": 40, "evaluate_every": 350}
    recipe = {
        "name": "run",
        "output": str(folder / "runs"),
        "data": {**data, "max_target": 12},
        "model": small | {"bridge": {"kind": "convolution", "stride": 3}},
        "train": train | {"evaluate_examples": 64, "precision": "fp32", "threads": 1},
        "generation": {"beams": 1, "max_new_tokens": 12},
    }
    return Path(sourcewise.train(Recipe.model_validate(recipe)).folder)


def said(run: Path, folder: Path, change: Callable[[np.ndarray], np.ndarray] | None) -> dict[str, str]:
    given = clips(folder / "other", 48, 3, change)
    found = sourcewise.diagnose(run, given["manifest"], features=given["features"]).findings
    return {finding.code: finding.evidence for finding in found}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f[sorted(range(len(f)), key=str)], "put back from the order of their numbers as text (0, 1, 10"),
        (lambda f: f * 255, "divided by 255"),
        (lambda f: 1 - 2 * f, "numbers of the other sign"),  # and on another scale
        (lambda f: np.roll(f, 3, 1), ""),  # not among what is tried
        (lambda f: f.repeat(2, 0), "every second frame left out"),
        (lambda f: f[:, ::-1], "dimensions from the last to the first"),
    ],
)
def test_the_change_is_named(run: Path, tmp_path: Path, change: Any, words: str) -> None:
    found = said(run, tmp_path, change)
    assert ("SRC007" in found) == bool(words) and words in found.get("SRC007", "")


@pytest.mark.parametrize("change", [None, lambda f: 1.05 * f, lambda f: f + 0.02, lambda f: f[:-1]])
def test_sources_that_are_as_they_were(run: Path, tmp_path: Path, change: Any) -> None:
    assert "SRC007" not in said(run, tmp_path, change)
