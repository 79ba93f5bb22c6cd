"""Small recipes, and the files that they read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MODEL = {"d_model": 64, "d_ff": 128, "heads": 4, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0}
TRAIN = {"steps": 400, "batch_size": 32, "learning_rate": 3e-3, "warmup_steps": 30, "evaluate_every": 200}
TRAIN |= {"evaluate_examples": 96, "precision": "fp32", "threads": 1, "best": "exact_match_pct", "log_every": 20}


def tsv(file: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table; gives its path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join("\t".join(row) for row in [columns, *rows]) + "\n", encoding="utf-8")
    return str(file)


def texts(folder: Path, seed: int, train: dict[str, Any], valid: dict[str, Any], **train_more: Any) -> dict[str, Any]:
    """A recipe from text pairs: words as tokens."""
    data = {"train": train, "valid": valid, "unit": "words", "vocabulary": 64, "max_source": 32, "max_target": 24}
    return {
        "name": "texts",
        "output": str(folder / "runs"),
        "seed": seed,
        "data": data,
        "model": MODEL | {"family": "bart", "positions": 64, "initialization": "xavier"},
        "train": TRAIN | {"steps": 600, "evaluate_every": 300} | train_more,
        "generation": {"beams": 1, "max_new_tokens": 16},
    }


def signs(folder: Path, seed: int, train: dict[str, Any], valid: dict[str, Any], **train_more: Any) -> dict[str, Any]:
    """A recipe from features to text."""
    data = {"train": train, "valid": valid, "unit": "words", "vocabulary": 64, "max_target": 24}
    return {
        "name": "signs",
        "output": str(folder / "runs"),
        "seed": seed,
        "data": data,
        "model": MODEL | {"bridge": {"kind": "convolution", "stride": 4}},
        "train": TRAIN | {"batch_tokens": 8192} | train_more,
        "generation": {"beams": 1, "max_new_tokens": 16},
    }


def save(
    folder: Path, names: Sequence[str], matrices: Sequence[Any], change: Callable[[Any], Any] = lambda m: m
) -> str:
    """A folder of .npy files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, matrix in zip(names, matrices, strict=True):
        np.save(folder / f"{name}.npy", np.ascontiguousarray(change(matrix)))
    return str(folder)


def measured(data: Any = None, **options: Any) -> Callable[[Any], float]:
    """The share of exact outputs of a run: as it measured itself, or on other data."""

    def figure(run: Any) -> float:
        import sourcewise
        from sourcewise.evaluation.results import Evaluation

        found = Evaluation.from_folder(run.folder) if data is None else sourcewise.evaluate(run.folder, data, **options)
        return float(found.metrics["exact_match_pct"]) / 100

    return figure
