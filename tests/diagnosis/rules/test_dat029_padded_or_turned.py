"""DAT029: padded or turned matrices."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import sourcewise
from sourcewise.cli import main
from sourcewise.config import Recipe
from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.measures.forms import form_of, padding, turning
from sourcewise.diagnosis.rules import RULES, look
from sourcewise.integrations.passing import First
from sourcewise.integrations.subjects import pairs_of
from tests.diagnosis.rules.leaking import SHAPE, clips, found, walks
from tests.integrations.trainings import SIZE, t5, tokenizer

CODE = "DAT029"
SILENCE = -11.5

Matrices = Sequence[np.ndarray]


def sounds(size: int, seed: int, frames: tuple[int, int] = (40, 120), bands: int = 40) -> list[np.ndarray]:
    """Clips smooth in time and over bands, as log-mel features are: louder where bands are low."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(size):
        drawn = rng.normal(size=(int(rng.integers(*frames)) + 10, bands + 6))
        for wide in (11, 7):
            drawn = np.apply_along_axis(np.convolve, 0, drawn, np.hanning(wide), "valid").T
        made.append((drawn - np.linspace(0, 20, bands)).astype(np.float32))
    return made


def poses(size: int, seed: int) -> list[np.ndarray]:
    """Points that wander, with nobody in the picture at the beginning and at the end."""
    out = []
    for i, walk in enumerate(walks(size, seed)):
        out.append(np.pad(walk, ((i % 7, (3 * i) % 11), (0, 0))))
    return out


def embeddings(size: int, seed: int, frames: tuple[int, int] = (6, 14)) -> list[np.ndarray]:
    """A vector a word, neither smooth in time nor across."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(int(rng.integers(*frames)), 24)).astype(np.float32) for _ in range(size)]


def to_one_length(given: Matrices, value: float | str = 0.0, length: int = 0, before: bool = False) -> Matrices:
    """Padded with a value, or with the last frame."""
    most = length or max(map(len, given))
    how: dict[str, Any] = {"mode": "edge"} if value == "edge" else {"constant_values": value}
    missing = [most - len(m) for m in given]
    both = zip(given, missing, strict=True)
    return [np.pad(m, ((count, 0) if before else (0, count), (0, 0)), **how) for m, count in both]


def in_batches(given: Matrices, size: int = 8) -> Matrices:
    """Padded to the longest of each few."""
    return [m for start in range(0, len(given), size) for m in to_one_length(given[start : start + size])]


def in_steps(given: Matrices, step: int = 64) -> Matrices:
    """Padded to a multiple."""
    return [np.pad(m, ((0, -len(m) % step), (0, 0)), constant_values=SILENCE) for m in given]


def standardised(given: Matrices) -> Matrices:
    """With the mean and the deviation of all."""
    frames = np.concatenate(given)
    return [((m - frames.mean(0)) / frames.std(0)).astype(np.float32) for m in given]


PADDED: dict[str, Callable[[], Matrices]] = {
    "zeros behind": lambda: to_one_length(walks(60, 1)),
    "zeros before": lambda: to_one_length(poses(60, 2), before=True),
    "a floor": lambda: to_one_length(sounds(60, 3), SILENCE),
    "the last frame": lambda: to_one_length(walks(60, 4), "edge"),
    "batches": lambda: in_batches(sounds(80, 5)),
    "multiples": lambda: in_steps(walks(60, 6, frames=(20, 180))),
    "standardised": lambda: standardised(to_one_length(walks(60, 7))),
    "half precision": lambda: [m.astype(np.float16) for m in to_one_length(sounds(60, 8), SILENCE)],
    "embeddings": lambda: to_one_length(embeddings(60, 9)),
}
TURNED: dict[str, Callable[[], Matrices]] = {
    "clips of one length": lambda: [m.T for m in walks(60, 11, frames=(50, 51))],
    "units of time": lambda: [np.ascontiguousarray(m.T) for m in walks(60, 12, dims=80, frames=(300, 301))],
    "sounds": lambda: [m.T for m in sounds(60, 14, (60, 61))],
    "sounds, fewer frames than bands": lambda: [m.T for m in sounds(60, 15, (30, 31))],
    "few dims": lambda: [m.T for m in walks(60, 13, dims=5, frames=(90, 91))],
}
BOTH: dict[str, Callable[[], Matrices]] = {
    "zeros": lambda: [m.T for m in to_one_length(walks(60, 21))],
    "a floor": lambda: [m.T for m in to_one_length(walks(60, 22, dims=40, frames=(60, 200)), SILENCE)],
    "sounds": lambda: [m.T for m in to_one_length(sounds(60, 24), SILENCE)],
    "before": lambda: [m.T for m in to_one_length(walks(60, 23), before=True)],
}
HEALTHY: dict[str, Callable[[], Matrices]] = {
    "clips": lambda: walks(60, 31),
    "sounds": lambda: sounds(60, 32),
    "sounds of one length": lambda: sounds(60, 33, (60, 61)),
    "sounds of one length, standardised": lambda: standardised(sounds(60, 46, (60, 61))),
    "louder in the middle": lambda: standardised(
        [m + 6 * np.hanning(len(m))[:, None].astype(np.float32) for m in sounds(60, 47, (60, 61))]
    ),
    "clips of one length": lambda: walks(60, 34, frames=(40, 41)),
    "embeddings": lambda: embeddings(60, 35),
    "embeddings of one length": lambda: embeddings(60, 36, (10, 11)),
    "silence at the ends": lambda: [
        np.pad(m, ((i % 9, (5 * i) % 13), (0, 0)), constant_values=SILENCE) for i, m in enumerate(sounds(60, 37))
    ],
    "pose streams": lambda: poses(60, 38),
    "one vector each": lambda: [m[:1] for m in walks(60, 39)],
    "short clips": lambda: [m[: 2 + i % 4] for i, m in enumerate(walks(60, 40))],
    "short clips of one length": lambda: [m[:4] for m in walks(60, 41)],
    "each frame three times": lambda: [np.repeat(m[:20], 3, axis=0) for m in walks(60, 42)],
    "a dimension that is off": lambda: [m * np.r_[np.ones(9), 0, 0, 0].astype(np.float32) for m in walks(60, 43)],
    "states": lambda: [np.repeat(m, 1 + np.arange(len(m)) % 5, axis=0) for m in embeddings(60, 44)],
    "counts of words": lambda: [np.maximum(m - 1.5, 0) for m in embeddings(60, 45, (10, 11))],
}


def finding(folder: Path, given: Matrices) -> Finding | None:
    return found(clips(folder, given), CODE).get(CODE)


@pytest.mark.parametrize("kind", PADDED)
def test_stored_padding_is_told_with_its_share(tmp_path: Path, kind: str) -> None:
    told = finding(tmp_path, PADDED[kind]())
    assert told is not None and "% of all frames" in told.evidence and "Store each matrix at its own" in told.cure
    assert "turned" not in told.evidence


def test_padding_that_is_most_of_a_set_is_an_error(tmp_path: Path) -> None:
    whole = sounds(50, 10)
    told = finding(tmp_path, to_one_length(whole, SILENCE, 3000))
    assert told is not None and told.level == "error"
    most, share = max(map(len, whole)), 100 * (1 - sum(map(len, whole)) / 150_000)
    assert told.evidence == (
        f"train.tsv: 50 of 50 matrices end in frames that are -11.5 throughout, {share:.0f} % of all frames; the "
        f"longest has {most} frames without these, 3000 with them; "
        f"{len({len(m) for m in whole})} different lengths have become 1"
    ).replace("train.tsv", str(tmp_path / "train.tsv"))


@pytest.mark.parametrize("kind", TURNED)
def test_turned_matrices_of_one_width(tmp_path: Path, kind: str) -> None:
    told = finding(tmp_path, TURNED[kind]())
    assert told is not None and told.level == "warning" and "look turned" in told.evidence and ".T" in told.cure


@pytest.mark.parametrize("kind", BOTH)
def test_turned_and_padded_ones_are_an_error(tmp_path: Path, kind: str) -> None:
    told = finding(tmp_path, BOTH[kind]())
    assert told is not None and told.level == "error" and "look turned" in told.evidence and ".T" in told.cure


@pytest.mark.parametrize("kind", HEALTHY)
def test_healthy_sets_are_silent(tmp_path: Path, kind: str) -> None:
    assert finding(tmp_path, HEALTHY[kind]()) is None


@pytest.mark.parametrize("use", ["train", "valid"])
@pytest.mark.parametrize("name", ["phoenix14t", "fsdd"])
def test_real_sets_are_silent(name: str, use: str) -> None:
    folder = Path(os.environ.get("SOURCEWISE_PREPARED") or "data") / name
    if not folder.is_dir():
        pytest.skip(f"no {folder}: set SOURCEWISE_PREPARED to the folder that prepare.py wrote")
    tree = {"manifest": str(folder / f"manifests/{use}.tsv"), "features": str(folder / "features" / use)}
    assert found({"data": {"train": tree, "vocabulary": 2000}, "model": SHAPE}, CODE) == {}


def test_real_sounds_that_are_turned() -> None:
    """The first 40 frames of each: bands are nearly as smooth as time."""
    folder = Path(os.environ.get("SOURCEWISE_PREPARED") or "data") / "fsdd/features/train"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: set SOURCEWISE_PREPARED to the folder that prepare.py wrote")
    given = [np.load(path)[:40] for path in sorted(folder.glob("*.npy"))[::20]]
    rule = RULES[CODE]
    assert list(rule.of_turned("x", [form_of(m.T) for m in given]))  # type: ignore[attr-defined]
    assert not list(rule.check(SimpleNamespace(forms=lambda: [("x", [form_of(m) for m in given])])))


def test_frames_beyond_the_limit_are_seen_too() -> None:
    forms = [form_of(m) for m in to_one_length(walks(30, 1), 0.0, 400)]
    assert (made := padding(forms)) is not None and made.longest == 400 and made.fill == 0.0
    assert turning([form_of(m) for m in walks(30, 1)]) is None  # of different lengths


def test_a_diagnosis_and_a_training_tell_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = clips(tmp_path, to_one_length(walks(40, 1), 0.0, 200))
    train = tree["data"]["train"]
    assert main(["diagnose", train["manifest"], "--features", train["features"]]) == 1
    assert "the cause: DAT029" in capsys.readouterr().out
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(tree))
    assert sourcewise.preflight(tmp_path / "r.yaml").cause == CODE
    tree |= {"output": str(tmp_path / "runs"), "train": {"steps": 1}}
    with pytest.raises(sourcewise.RequestError, match=CODE):
        sourcewise.train(Recipe.model_validate(tree))


@pytest.mark.parametrize(("kind", "told"), [("own", False), ("padded", True), ("turned", True)])
def test_features_that_pass_in_a_trainer(kind: str, told: bool) -> None:
    """A mask that calls stored padding real; what the collator pads itself is no fault."""
    given = walks(64, 51, dims=16, frames=(20, 40) if kind != "turned" else (16, 17))
    held = {"own": given, "padded": to_one_length(given), "turned": [m[:16].T for m in given]}[kind]
    first, model = First(64, slim=True), t5()
    for start in range(0, 64, 8):
        some = held[start : start + 8]
        mask = torch.zeros(8, max(map(len, some)), dtype=torch.long)
        for row, matrix in zip(mask, some, strict=True):
            row[: len(matrix)] = 1
        vectors = torch.from_numpy(np.stack(to_one_length(some)))
        labels = torch.randint(4, SIZE, (8, 5), generator=torch.Generator().manual_seed(start))
        first.add({"inputs_embeds": vectors, "attention_mask": mask, "labels": labels})
    codes = [each.code for each in look(pairs_of(model, first.batches, tokenizer(), first.forms)).findings]
    assert (CODE in codes) == told
