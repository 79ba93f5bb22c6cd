"""Small trainings for the tests: a toy language, learnt in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sourcewise.config import Recipe

WORDS = ("ba", "do", "ki", "lu", "me", "no")
SPOKEN = ("one", "two", "three", "four", "five", "six")


def pairs_file(folder: Path, name: str = "pairs.tsv", size: int = 1500, seed: int = 0) -> Path:
    """Word-for-word translations of random words."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(size):
        chosen = rng.permutation(len(WORDS))[: rng.integers(2, 5)]
        rows.append(" ".join(WORDS[i] for i in chosen) + "\t" + " ".join(SPOKEN[i] for i in chosen) + "\n")
    path = folder / name
    path.write_text("source\ttarget\n" + "".join(rows), encoding="utf-8")
    return path


def recipe(folder: Path, **changes: Any) -> Recipe:
    """A tiny text recipe; `changes` are dotted keys with __ for dots."""
    tree: dict[str, Any] = {
        "name": "tiny",
        "output": str(folder / "runs"),
        "data": {
            "train": {"pairs": str(pairs_file(folder))},
            "valid": {"pairs": str(pairs_file(folder, "valid.tsv", 24, 1))},
            "vocabulary": 64,
        },
        "model": {"d_model": 32, "d_ff": 64, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0},
        "train": {
            "steps": 24,
            "batch_tokens": 256,
            "evaluate_every": 8,
            "log_every": 4,
            "warmup_steps": 4,
            "threads": 1,
            "preflight": False,  # its own tests are in tests/diagnosis
        },
        "generation": {"beams": 2, "max_new_tokens": 12},
    }
    for key, value in changes.items():
        *sections, last = key.split("__")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
    return Recipe.model_validate(tree)


def feature_recipe(folder: Path, **changes: Any) -> Recipe:
    """The same shape on the embedded digits."""
    data = {
        "train": {"builtin": "digits", "limit": 200},
        "valid": {"builtin": "digits", "limit": 20},
        "vocabulary": 64,
    }
    return recipe(folder, **{"data": data, **changes})
