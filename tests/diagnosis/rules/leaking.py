"""Sets of a training, planted with leaks, and what the rules over data say of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sourcewise.config import Recipe
from sourcewise.diagnosis import ours
from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.rules import look
from sourcewise.training.setup import set_up

SHAPE = {"d_model": 8, "d_ff": 8, "heads": 1, "encoder_layers": 1, "decoder_layers": 1}
CODES = "DAT008 DAT019..DAT021"
Row = Mapping[str, str]


def sentences(size: int, seed: int, words: int = 10) -> list[str]:
    """Sentences of ten of 400 made words, as varied as real ones."""
    rng = np.random.default_rng(seed)
    parts = ("ba", "do", "ki", "lu", "me", "no", "pa", "ro", "su", "ta", "vi", "ze", "gol", "hun", "fra", "ste", "mil")
    known = [a + b for a in parts for b in parts]
    return [" ".join(known[i] for i in rng.integers(0, len(known), words)) for _ in range(size)]


def rows(size: int, seed: int, **columns: Callable[[int], str]) -> list[dict[str, str]]:
    """Rows with a source, a target and other columns."""
    pairs = zip(sentences(size, seed), sentences(size, seed + 100), strict=True)
    return [
        {"source": source, "target": target, **{name: of(i) for name, of in columns.items()}}
        for i, (source, target) in enumerate(pairs)
    ]


def write(path: Path, table: Sequence[Row]) -> str:
    names = list(table[0])
    lines = ["\t".join(names), *("\t".join(row[name] for name in names) for row in table)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def texts(folder: Path, train: Sequence[Row], **held: Sequence[Row]) -> dict[str, Any]:
    sets = {use: {"pairs": write(folder / f"{use}.tsv", table)} for use, table in {"train": train, **held}.items()}
    return {"data": {**sets, "vocabulary": 200}, "model": SHAPE}


def walks(size: int, seed: int, dims: int = 12, frames: tuple[int, int] = (30, 60)) -> list[np.ndarray]:
    """Clips that wander about, each in its own way, as features of real ones do."""
    rng = np.random.default_rng(seed)
    clips = []
    for _ in range(size):
        steps = rng.normal(size=(rng.integers(*frames), dims))
        walk = np.cumsum(steps, axis=0) * 0.6
        clips.append((walk - walk.mean(0) + rng.normal(size=dims)).astype(np.float32))
    return clips


def clips(folder: Path, train: Sequence[np.ndarray], **held: Sequence[np.ndarray]) -> dict[str, Any]:
    """A recipe of feature sets; every target is a text of its own."""
    sets = {}
    for number, (use, matrices) in enumerate({"train": train, **held}.items()):
        (folder / use).mkdir()
        for i, matrix in enumerate(matrices):
            np.save(folder / use / f"{use}{i}.npy", matrix)
        targets = sentences(len(matrices), 500 + number)
        table = [
            {"id": f"{use}{i}", "n_frames": str(len(matrix)), "text": targets[i]} for i, matrix in enumerate(matrices)
        ]
        sets[use] = {"manifest": write(folder / f"{use}.tsv", table), "features": str(folder / use)}
    return {"data": {**sets, "vocabulary": 200}, "model": SHAPE}


def found(tree: dict[str, Any], codes: str = CODES) -> dict[str, Finding]:
    setup = set_up(Recipe.model_validate(tree))
    piece = look(ours.pairs_of(setup, ours.plan_of(setup.recipe, setup.train)), codes=codes)
    return {finding.code: finding for finding in piece.findings}


def levels(tree: dict[str, Any], codes: str = CODES) -> dict[str, str]:
    return {code: finding.level for code, finding in found(tree, codes).items()}
