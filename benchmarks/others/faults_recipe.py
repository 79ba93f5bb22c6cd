"""Faults of people who train by a recipe of ours: sign language features, as a manifest lists them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from planted.subjects import COMMON, nested

import sourcewise
from others.case import Cases
from others.hosts import Planned
from others.tasks import ENGLISH

CASES = Cases()
fault = partial(CASES.fault, host="recipe")
DIMS, SIGN = 12, 6  # a sign is so many frames


@dataclass
class Clip:
    """A clip as a manifest has it."""

    name: str
    matrix: Any
    text: str
    signer: str


def clips(
    count: int, seed: int, signers: Sequence[int] = (0,), accent: float = 0.0, low: int = 2, high: int = 4
) -> list[Clip]:
    """Signed numbers: a pattern a sign, each signer with an accent (deviations of that pattern)."""
    rng = np.random.default_rng([21, seed])
    signs = np.random.default_rng(20).normal(size=(10, SIGN, DIMS))
    found = []
    for i in range(count):
        signer = signers[i % len(signers)]
        own = signs + accent * np.random.default_rng([22, signer]).normal(size=signs.shape)
        digits = rng.integers(0, 10, rng.integers(low, high + 1))
        matrix = np.concatenate([own[d] for d in digits]) + 0.2 * rng.normal(size=(SIGN * len(digits), DIMS))
        text = " ".join(ENGLISH[d] for d in digits)
        found.append(Clip(f"clip{seed}_{i:04d}", matrix.astype(np.float32), text, f"Signer{signer:02d}"))
    return found


def manifest(folder: Path, split: str, rows: Sequence[Clip]) -> dict[str, str]:
    """Write a manifest and its matrices; gives the options that read them."""
    (folder / "features" / split).mkdir(parents=True)
    lines = ["id\tn_frames\ttext\tsigner"]
    for clip in rows:
        np.save(folder / "features" / split / f"{clip.name}.npy", clip.matrix)
        lines.append(f"{clip.name}\t{len(clip.matrix)}\t{clip.text}\t{clip.signer}")
    (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    features = str(folder / "features" / split)
    return {f"data.{split}.manifest": str(folder / f"{split}.tsv"), f"data.{split}.features": features}


def recipe(folder: Path, train: Sequence[Clip], valid: Sequence[Clip], **options: Any) -> dict[str, Any]:
    """A recurrent network on clips, in seconds."""
    asked = COMMON | {"model.family": "rnn", "train.steps": 260, "output": str(folder / "runs"), "seed": 0}
    asked |= manifest(folder, "train", train) | manifest(folder, "valid", valid)
    asked |= {name.replace("__", "."): value for name, value in options.items()}
    asked["train.evaluate_every"] = max(1, int(asked["train.steps"]) // 4)
    return nested(asked)


def right(run: Any, rows: Sequence[Clip]) -> float:
    """The share of clips whose text the run says exactly."""
    model = sourcewise.load(run.folder)
    said = model.generate([clip.matrix for clip in rows], beams=1)
    return sum(a == clip.text for a, clip in zip(said, rows, strict=True)) / len(rows)


def scored(rows: Sequence[Clip]) -> Callable[[Any], float]:
    """The figure of a run on these clips."""
    return lambda run: right(run, rows)


@fault(
    name="a tenth of the usual steps",
    origin="SignThought #5: 18 to 20 BLEU in place of 27.2, for want of 500 epochs; Uni-Sign #26: 0.16 BLEU",
    what="the training ends after 40 steps, where this set needs 260",
    expected="it was trained far too little",
    accepts="TRN013 TRN014 new:too-few-steps",
)
def _(broken: bool, seed: int, folder: Path) -> Planned:
    rows = clips(1100, seed)
    planned = recipe(folder, rows[:1000], rows[1000:], train__steps=40 if broken else 400)
    return Planned(planned, scored(rows[1000:]))


@fault(
    name="signers in both splits",
    origin="EMNLP 2025 Findings #997: GFSLT-VLP 21.4 → 3.6 on signers it has not seen",
    what="clips were split at random: each signer of validation is in training, and the score tells of no other signer",
    expected="signers are in both splits",
    accepts="DAT019",
    also="DAT020 DAT021",
    figure="the score on signers nobody has seen, as a share of the score that validation tells",
)
def _(broken: bool, seed: int, folder: Path) -> Planned:
    strangers = clips(100, seed + 500, range(90, 100), accent=1.5)
    train = clips(1100, seed, range(6) if broken else range(60), accent=1.5)  # many signers teach what they share
    valid = train[1000:] if broken else clips(100, seed + 900, range(80, 90), accent=1.5)
    planned = recipe(folder, train[:1000], valid, train__steps=400)
    return Planned(planned, lambda run: min(1.0, right(run, strangers) / max(0.01, right(run, valid))))


@fault(
    name="clips cut to their first quarter",
    origin="max_frames of another corpus: CV-SLT #4's kind, PHOENIX settings on CSL-Daily",
    what="data.max_frames is 12, clips have 24 to 48 frames",
    expected="sources are cut",
    accepts="DAT007",
)
def _(broken: bool, seed: int, folder: Path) -> Planned:
    rows = clips(1100, seed, low=4, high=8)
    planned = recipe(folder, rows[:1000], rows[1000:], train__steps=400, **({"data__max_frames": 12} if broken else {}))
    return Planned(planned, scored(rows[1000:]))
