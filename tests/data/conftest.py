"""Small sets on disk, as users bring them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def write_features(tmp_path: Path) -> Callable[..., Path]:
    """Writes a manifest of our own layout with its matrices; returns the manifest."""

    def write(
        lengths: tuple[int, ...] = (5, 8, 3),
        dims: int = 4,
        name: str = "train",
        dtype: str = "float16",
        **columns: list,
    ) -> Path:
        folder = tmp_path / "features" / name
        folder.mkdir(parents=True, exist_ok=True)
        manifest = tmp_path / "manifests" / f"{name}.tsv"
        manifest.parent.mkdir(exist_ok=True)
        rng = np.random.default_rng(0)
        rows = [["id", "n_frames", "text", *columns]]
        for i, frames in enumerate(lengths):
            np.save(folder / f"clip{i}.npy", rng.standard_normal((frames, dims)).astype(dtype))
            rows.append([f"clip{i}", str(frames), f"text {i}", *(str(values[i]) for values in columns.values())])
        manifest.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
        return manifest

    return write


@pytest.fixture
def write_text(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Writes a file under the test's folder; returns its path."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return write


@pytest.fixture
def write_jsonl(write_text: Callable[[str, str], Path]) -> Callable[..., Path]:
    """Writes objects as lines of JSON; returns the file."""
    return lambda name, *rows: write_text(name, "".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="session")
def benchmark_data() -> Path:
    """The folder of benchmark data: $SOURCEWISE_DATA, or ../shared/data beside the repository."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get("SOURCEWISE_DATA") or beside)
    if not (folder / "prepare.py").is_file():
        pytest.skip(f"no benchmark data: set SOURCEWISE_DATA to the folder that holds prepare.py (looked in {folder})")
    return folder
