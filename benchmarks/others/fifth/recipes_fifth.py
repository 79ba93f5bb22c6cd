"""Recipes of our own: six faults in data and settings."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from others import speech, tasks
from others.case import Cases
from others.hosts import Planned
from others.tasks import ENGLISH

CASES = Cases()
VIETNAMESE = ["không", "một", "hai", "ba", "bốn", "năm", "sáu", "bảy", "tám", "chín"]


def exact(run: Any) -> float:
    """Exact matches of the final evaluation."""
    return float(json.loads((run.folder / "metrics.json").read_text())["exact_match_pct"]) / 100


def table(file: Path, pairs: Sequence[tuple[str, str]], head: tuple[str, str] = ("source", "target")) -> str:
    """A .tsv of pairs."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{a}\t{b}\n" for a, b in (head, *pairs)), encoding="utf-8")
    return str(file)


def recipe(
    folder: Path, first: Any, second: Any, seed: int, steps: int = 400, rate: float = 2e-3, **more: Any
) -> dict[str, Any]:
    """A small T5 from scratch."""
    return {
        "name": "run",
        "output": str(folder / "runs"),
        "seed": seed,
        "data": {"train": first, "valid": second, "max_source": 32, "vocabulary": 64, "unit": "words", "max_target": 16,
                 **more.pop("data", {})},
        "model": {
            "d_model": 64, "d_ff": 128, "heads": 4, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0,
            "family": "bart",
            **more.pop("model", {}),
        },
        "train": {
            "steps": steps, "batch_size": 32, "learning_rate": rate, "warmup_steps": 40, "precision": "fp32",
            "evaluate_every": steps, "evaluate_examples": 96, "threads": 1, "best": "exact_match_pct",
            **more.pop("train", {}),
        },
        "generation": {"beams": 1, "max_new_tokens": 16},
    }  # fmt: skip


def numbers(count: int, seed: int, source: Sequence[str]) -> list[tuple[str, str]]:
    """Number words of one language, and the English ones; no source comes twice."""
    draw, found = random.Random(seed), {}
    while len(found) < count:
        row = [draw.randrange(10) for _ in range(draw.randint(2, 4))]
        found[" ".join(source[d] for d in row)] = " ".join(ENGLISH[d] for d in row)
    return list(found.items())


def clips(folder: Path, name: str, count: int, seed: int, low: int = 1, high: int = 3) -> tuple[list[Any], list[str]]:
    """Clips (frames, bands) of so many words, each as long as it is, and their texts."""
    draw, noise, sounds = random.Random(f"{name}{seed}"), np.random.default_rng([31, seed, len(name)]), speech.sounds()
    matrices, texts = [], []
    for _ in range(count):
        row = [draw.randrange(10) for _ in range(draw.randint(low, high))]
        clean = np.concatenate([sounds[digit].T for digit in row])
        matrices.append((clean + 0.2 * noise.normal(size=clean.shape)).astype(np.float32))
        texts.append(" ".join(ENGLISH[digit] for digit in row))
    return matrices, texts


def manifest(
    folder: Path, name: str, ids: Sequence[str], matrices: Sequence[Any], texts: Sequence[str]
) -> dict[str, str]:
    """A manifest and its folder of features; matrices are stored under `ids`, texts stand beside them."""
    features = folder / "features" / name
    features.mkdir(parents=True)
    for key, matrix in zip(ids, matrices, strict=True):
        np.save(features / f"{key}.npy", matrix)
    file = table(folder / "manifests" / f"{name}.tsv", list(zip(ids, texts, strict=True)), ("id", "text"))
    return {"manifest": file, "features": str(features)}


def plain(folder: Path, name: str, count: int, seed: int) -> dict[str, str]:
    """A set of clips as they should be."""
    matrices, texts = clips(folder, name, count, seed)
    return manifest(folder, name, [f"{name}{i:05}" for i in range(count)], matrices, texts)


def of_frames(folder: Path, first: Any, second: Any, seed: int, **more: Any) -> Planned:
    """A recipe that reads clips."""
    t5 = {"family": "t5", "decoder_positions": True}
    model = {"bridge": {"kind": "convolution", "stride": 2}, **t5, **more.pop("model", {})}
    return Planned(
        recipe(folder, first, second, seed, 350, 4e-3, model=model, data={"unit": "subwords"}, **more), exact
    )


@CASES.fault(
    "half the frame rate in validation",
    "recipe",
    origin="joonson/syncnet_python#21, hulianyuyy/CorrNet_Plus#13: videos of another frame rate than the training's",
    what="Validation clips were extracted at half the frame rate of the training clips",
    expected="Validation clips have another frame rate: half as many frames a word as in training",
    accepts="new:other-frame-rate",
)
def half_rate(broken: bool, seed: int, folder: Path) -> Planned:
    train = plain(folder, "train", 1000, seed)
    matrices, texts = clips(folder, "valid", 96, seed)
    step = 2 if broken else 1
    valid = manifest(folder, "valid", [f"v{i:05}" for i in range(96)], [each[::step] for each in matrices], texts)
    return of_frames(folder, train, valid, seed)


@CASES.fault(
    "training text read in another encoding",
    "recipe",
    origin="unicamp-dl/mMARCO#24 (mojibake in a whole corpus), openai/gpt-2#26: open() without "
    "encoding='utf-8' on Windows",
    what="The sources of the training file are UTF-8 read as cp1252 and written again; those of validation are right",
    expected="Training sources are mojibake (UTF-8 read as cp1252 or latin-1)",
    accepts="new:mojibake",
)
def mojibake(broken: bool, seed: int, folder: Path) -> Planned:
    train, valid = tasks.split(numbers(1600, seed, VIETNAMESE))
    if broken:
        train = [(source.encode("utf-8").decode("cp1252"), target) for source, target in train]
    files = ({"pairs": table(folder / f"{name}.tsv", pairs)} for name, pairs in (("train", train), ("valid", valid)))
    return Planned(recipe(folder, *files, seed), exact)


@CASES.fault(
    "clips sorted as words",
    "recipe",
    origin="chuanyangjin/fast-DiT#4, Calamari-OCR/calamari#234: features and labels are paired by the "
    "order of listed files",
    what="Texts in the order of numbers are paired with clips in the order of sorted names: 0, 1, 10, 100, 1000, 101 …",
    expected="Training clips are paired with the texts of other clips",
    accepts="new:pairs-misaligned",
)
def sorted_as_words(broken: bool, seed: int, folder: Path) -> Planned:
    matrices, texts = clips(folder, "train", 1200, seed)
    ids = [f"clip{i}" for i in range(len(texts))]
    train = manifest(folder, "train", ids, matrices, texts)
    if broken:
        table(folder / "manifests" / "train.tsv", list(zip(sorted(ids), texts, strict=True)), ("id", "text"))
    return of_frames(folder, train, plain(folder, "valid", 96, seed), seed)


@CASES.fault(
    "half of the targets untranslated",
    "recipe",
    origin="Khayrallah and Koehn 2018 (untranslated sentences make a system copy); back-translations that "
    "fell back to the source",
    what="In half of the training rows the target is the source itself: the service that translated them had failed",
    expected="Many training targets are copies of their sources",
    accepts="new:targets-copy-source",
)
def untranslated(broken: bool, seed: int, folder: Path) -> Planned:
    train, valid = tasks.split(tasks.numbers(1600, seed, 2, 4))
    if broken:
        draw = random.Random(seed)
        train = [(source, source if draw.random() < 0.5 else target) for source, target in train]
    files = ({"pairs": table(folder / f"{name}.tsv", pairs)} for name, pairs in (("train", train), ("valid", valid)))
    return Planned(recipe(folder, *files, seed), exact)


@CASES.fault(
    "keypoints in pixels",
    "recipe",
    origin="sign-language-processing/detection-train#4, SignLLM/Prompt2Sign#1: key points that are not normalised",
    what="Features are pixel coordinates, far from zero with small movements, and model.bridge.normalize is off",
    expected="Features are not normalised: their offsets are far larger than what varies",
    accepts="new:features-not-normalised",
)
def keypoints(broken: bool, seed: int, folder: Path) -> Planned:
    offsets = np.random.default_rng(33).uniform(200, 1900, speech.BANDS).astype(np.float32)
    sets = []
    for name, count in (("train", 1000), ("valid", 96)):
        matrices, texts = clips(folder, name, count, seed)
        pixels = [(3 * each + offsets).astype(np.float32) for each in matrices]
        sets.append(manifest(folder, name, [f"{name}{i:05}" for i in range(count)], pixels, texts))
    bridge = {"kind": "convolution", "stride": 2, "normalize": not broken}
    return of_frames(folder, *sets, seed, model={"bridge": bridge})


@CASES.fault(
    "row numbers as sources",
    "recipe",
    origin="DataFrame.to_csv writes its index: a first column of row numbers, taken as the text by those "
    "who read columns by place",
    what="The recipe names the column of row numbers as the source; the sentences stand in another column",
    expected="The source column holds row numbers (the wrong column): it says nothing of the target",
    accepts="new:wrong-column",
)
def row_numbers(broken: bool, seed: int, folder: Path) -> Planned:
    sets = []
    for name, pairs in zip(("train", "valid"), tasks.split(tasks.numbers(1600, seed, 2, 4)), strict=True):
        rows = [(f"{place}\t{source}", target) for place, (source, target) in enumerate(pairs)]
        file = table(folder / f"{name}.tsv", rows, ("index\tsentence", "translation"))
        sets.append({"pairs": file, "source": "index" if broken else "sentence", "target": "translation"})
    return Planned(recipe(folder, *sets, seed), exact)
