"""The recipes of published tables, in small: their commands run to the end and print figures with floors beside."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sourcewise.cli.parser import main

SYLLABLES = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("a", "ei", "o", "au", "ich")]
LANGUAGES = ("ady", "arm", "bul", "dut", "fre", "geo", "gre", "hin", "hun", "ice", "jpn", "kor", "lit", "rum", "vie")
SMALL = ("--train.steps", "3", "--train.evaluate_every", "3", "--train.batch_tokens", "800", "--train.average", "0")


def table(path: Path, columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    """Write a .tsv."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in (columns, *rows)), encoding="utf-8")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sets in the layout of Multi30k, of the shared task and of phoenix14t."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)

    def text(count: int) -> str:
        return " ".join(rng.choice(SYLLABLES, count))

    for split, size in {"train": 300, "valid": 60, "test": 60}.items():
        pairs = [(text(6), text(6)) for _ in range(size)]
        table(folder / "multi30k" / f"{split}.tsv", ("source", "target"), pairs)
        words = [
            (language, " ".join(text(1)), " ".join(text(1))) for _ in range(size // 10 + 1) for language in LANGUAGES
        ]
        table(folder / "g2p" / f"{split}.tsv", ("language", "source", "target"), words)
    states = rng.standard_normal((100, 96)).astype("float32")
    for split, size, of in (("train", 80, "held/train"), ("train", 20, "held/valid"), ("valid", 30, "valid")):
        rows: list[tuple[object, ...]] = []
        for i in range(size):
            frames, clip = int(rng.integers(20, 60)), f"{of.replace('/', '-')}{i}"
            matrix = folder / "phoenix14t" / "features" / split / f"{clip}.npy"
            matrix.parent.mkdir(parents=True, exist_ok=True)
            np.save(matrix, states[rng.integers(0, 100, frames)])
            rows.append((clip, frames, text(5)))
        table(folder / "phoenix14t" / "manifests" / f"{of}.tsv", ("id", "n_frames", "text"), rows)
    return folder


@pytest.mark.parametrize("name", ["multi30k", "multi30k_tiny", "multi30k_deen", "g2p", "phoenix14t"])
def test_a_command_of_a_table_prints_its_figures_and_what_they_must_beat(
    name: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["train", name, "--data.root", str(root), "--output", str(tmp_path), "--data.vocabulary", "150"]
    assert main([*given, *SMALL, "--generation.max_new_tokens", "12", "--train.preflight", "false"]) == 0
    told = json.loads((tmp_path / name / "metrics.json").read_text(encoding="utf-8"))
    assert {"bleu", "wer", "source_bits", "baselines", "verdict"} <= told.keys()
    printed = capsys.readouterr().out
    assert "source bits" in printed and "copy" in printed
    if name == "g2p":
        assert set(told["tasks"]) == set(LANGUAGES)
