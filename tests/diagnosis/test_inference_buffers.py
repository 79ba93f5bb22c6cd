"""Buffers that a network made in inference mode, such as a table that grew with the longest source, are put back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import sourcewise
from sourcewise.config import Recipe
from sourcewise.diagnosis.borrowing import borrowed
from sourcewise.model.blocks.positions import SinusoidalPositions
from tests.diagnosis.test_wiring import prepared


def test_a_table_that_grew_is_one_for_trainings_too() -> None:
    positions = SinusoidalPositions(8)
    with torch.inference_mode():
        positions(torch.zeros(1, 200, 8))
    assert len(positions.table) >= 200 and not positions.table.is_inference()


def test_a_buffer_of_somebody_else() -> None:
    network = prepared().network
    with torch.inference_mode():
        network.register_buffer("cache", torch.arange(4.0))
    with borrowed(network), torch.inference_mode():
        network.cache.zero_()
    assert network.cache.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["attention", "perceiver", "projection"])
def test_clips_longer_than_any_table(tmp_path: Path, kind: str) -> None:
    """`diagnose RUN MANIFEST` with clips of some hundred frames."""
    rng = np.random.default_rng(0)
    (tmp_path / "features").mkdir()
    for i in range(24):
        np.save(tmp_path / "features" / f"c{i}.npy", rng.standard_normal((300, 4)).astype(np.float32))
    rows = "".join(f"c{i}\tword {i % 5} and {i % 3}\n" for i in range(24))
    (tmp_path / "m.tsv").write_text("id\ttext\n" + rows)
    one = {"manifest": str(tmp_path / "m.tsv"), "features": str(tmp_path / "features")}
    shape = {"d_model": 8, "d_ff": 8, "heads": 1, "encoder_layers": 1, "decoder_layers": 1}
    recipe = {
        "name": "r",
        "output": str(tmp_path),
        "data": {"train": one, "valid": one},
        "model": shape | {"bridge": {"kind": kind, "stride": 2}},
        "train": {"steps": 2, "preflight": False, "threads": 1},
        "generation": {"max_new_tokens": 4},
    }
    run = sourcewise.train(Recipe.model_validate(recipe))
    told = sourcewise.diagnose(run.folder, tmp_path / "m.tsv", features=str(tmp_path / "features"))
    assert told.verdict in ("healthy", "undecided", "ill")
