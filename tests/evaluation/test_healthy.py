"""Small models that learned their task are above copying, by their set's own metric."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sourcewise
from sourcewise.evaluation.verdict import verdict_of
from tests.training.recipes import recipe

pytestmark = pytest.mark.slow

NAMES = ("ba", "do", "ki", "lu", "me", "no", "pa", "ro", "si", "tu", "ve", "wo")
SPOKEN = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
LEARNED = {"steps": 500, "evaluate_every": 500, "learning_rate": 5e-3, "batch_tokens": 1024, "warmup_steps": 20}


def drawn(size: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [list(map(int, rng.integers(0, len(NAMES), rng.integers(4, 9)))) for _ in range(size)]


def target(numbers: list[int], kind: str) -> str:
    if kind == "label":
        return SPOKEN[max(numbers)]
    return " ".join(SPOKEN[n] for n in numbers)


def written(folder: Path, kind: str, metric: str | None) -> dict[str, Any]:
    """A training set and a test set, of texts, or of a noisy vector per word and frame."""
    rng, vectors = np.random.default_rng(0), np.random.default_rng(9).standard_normal((len(NAMES), 8))
    data: dict[str, Any] = {"vocabulary": 64}
    folder.mkdir()
    for split, size, seed in (("train", 2500, 0), ("valid", 120, 1)):
        rows = drawn(size, seed)
        if kind == "features":
            (folder / split).mkdir()
            lines = ["id\tn_frames\ttext\n"]
            for i, numbers in enumerate(rows):
                frames = np.repeat(vectors[numbers], 2, 0) + 0.3 * rng.standard_normal((2 * len(numbers), 8))
                np.save(folder / split / f"c{i}.npy", frames.astype(np.float32))
                lines.append(f"c{i}\t{len(frames)}\t{target(numbers, kind)}\n")
            (folder / f"{split}.tsv").write_text("".join(lines))
            data[split] = {"manifest": str(folder / f"{split}.tsv"), "features": str(folder / split)}
        else:
            pairs = [f"{' '.join(NAMES[n] for n in numbers)}\t{target(numbers, kind)}\n" for numbers in rows]
            (folder / f"{split}.tsv").write_text("source\ttarget\n" + "".join(pairs))
            data[split] = {"pairs": str(folder / f"{split}.tsv")}
        data[split]["metric"] = metric
    return data


KINDS: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "text by BLEU": ("text", None, {}),
    "text by WER": ("text", "wer", {"route": "encoder", "encoder_layers": 1}),
    "text by chrF": ("text", "chrf", {"decoder_layers": 1}),
    "labels": ("label", None, {}),
    "features by WER": ("features", "wer", {"bridge": {"kind": "projection", "stride": 2}}),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_healthy_model_is_above_copying(name: str, tmp_path: Path) -> None:
    kind, metric, model = KINDS[name]
    shape = {"d_model": 48, "d_ff": 96, "heads": 2, "encoder_layers": 2, "decoder_layers": 2, "dropout": 0.0}
    train = {"log_every": 100, "threads": 1, "preflight": False, **LEARNED}
    made = recipe(tmp_path, data=written(tmp_path / "sets", kind, metric), train=train, model=shape | model)
    run = sourcewise.train(made)
    assert run.evaluation is not None
    verdict = verdict_of(run.evaluation)
    assert verdict is not None and verdict.level == "above copying", verdict
    assert not [f for f in sourcewise.diagnose(run.folder).findings if f.code == "OUT009"]
