"""Faults in the data of recipes: order of files, axes, the choice of rows, languages, encodings, columns."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
from others import tasks
from others.case import Cases
from others.hosts import Planned
from others.tasks import ENGLISH, GERMAN

sys.path.insert(0, str(Path(__file__).parent))
from third_parts import plans, senses

CASES = Cases()
VIETNAMESE = ["không", "một", "hai", "ba", "bốn", "năm", "sáu", "bảy", "tám", "chín"]


@CASES.fault(
    "clip-10-before-clip-2",
    "recipe",
    origin="chuanyangjin/fast-DiT#4, xyanchen/WiFi-CSI-Sensing-Benchmark#7, argilla-io/distilabel#609: files in"
    " the order of their names beside lines in the order of their numbers",
    what="the manifest pairs the lines of a text file with sorted(listdir()): clip_10 comes before clip_2",
    expected="features and texts of the set do not belong together",
    accepts="new:mispaired-set",
    figure="exact match on rightly paired validation clips",
    gap=0.4,
)
def clip_10_before_clip_2(broken: bool, seed: int, folder: Path) -> Planned:
    """Signed digits."""
    sets = {}
    for split, count, offset in (("train", 1300, 0), ("valid", 96, 5000)):
        rows = senses.clips(count, seed + offset)
        names = [f"clip_{i}" for i in range(count)]
        features = plans.save(folder / split, names, [frames for frames, _ in rows])
        lines = [text for _, text in rows]
        right = plans.tsv(folder / f"{split}_right.tsv", ("id", "text"), list(zip(names, lines, strict=True)))
        listed = sorted(names) if broken else names
        manifest = plans.tsv(folder / f"{split}.tsv", ("id", "text"), list(zip(listed, lines, strict=True)))
        sets[split] = {"manifest": manifest, "features": features}
    recipe = plans.signs(folder, seed, sets["train"], sets["valid"])
    return Planned(recipe, plans.measured(right, features=features, target="text"))


@CASES.fault(
    "bands-before-frames",
    "recipe",
    origin="vincentqb/audio-tutorial#1, cyhuang-tw/AdaIN-VC#7, NVIDIA-NeMo/Speech#5181: spectrograms as (bands, time)",
    what="spectrograms are saved as the library gives them, (bands, frames): all clips are cut to one length, so that"
    " bands are taken for frames",
    expected="time and dimensions of the features are exchanged",
    accepts="new:axes-exchanged",
)
def bands_before_frames(broken: bool, seed: int, folder: Path) -> Planned:
    """Spoken digits with pauses, clips of 56 frames × 20 bands."""
    shapes = np.random.default_rng(31).normal(size=(10, 8, 20)).astype(np.float32)
    sets = {}
    for split, count, offset in (("train", 1300, 0), ("valid", 96, 5000)):
        draw, noise, matrices, texts = random.Random(seed + offset), np.random.default_rng([32, seed + offset]), [], []
        for _ in range(count):
            digits = [draw.randrange(10) for _ in range(draw.randint(2, 4))]
            frames, at = 0.3 * noise.normal(size=(56, 20)).astype(np.float32), draw.randint(0, 6)
            for digit in digits:
                frames[at : at + 8] += shapes[digit]
                at += 8 + draw.randint(0, 5)
            matrices.append(frames)
            texts.append(" ".join(ENGLISH[digit] for digit in digits))
        names = [f"utt{i:04}" for i in range(count)]
        change = (lambda matrix: matrix.T) if broken else (lambda matrix: matrix)
        features = plans.save(folder / split, names, matrices, change)
        manifest = plans.tsv(folder / f"{split}.tsv", ("id", "text"), list(zip(names, texts, strict=True)))
        sets[split] = {"manifest": manifest, "features": features}
    return Planned(plans.signs(folder, seed, sets["train"], sets["valid"], steps=500), plans.measured())


def paired(folder: Path, name: str, rows: Any) -> dict[str, Any]:
    """A set of pairs."""
    return {"pairs": plans.tsv(folder / f"{name}.tsv", ("source", "target"), rows)}


@CASES.fault(
    "first-rows-of-a-sorted-file",
    "recipe",
    origin="a sorted file and head -n for a first try; training on short ones: tensorflow/tensor2tensor#582",
    what="the training file is sorted by length, and limit takes its first 1,100 rows: none of them is long",
    expected="the training set has no long examples, the validation set has",
    accepts="new:lengths-unlike-training",
)
def first_rows_of_a_sorted_file(broken: bool, seed: int, folder: Path) -> Planned:
    """Numbers of two to six digits."""
    train, valid = tasks.split(tasks.numbers(4096, seed, 2, 6))
    if broken:
        train = sorted(train, key=lambda pair: len(pair[0].split()))
    sets = (paired(folder, "train", train) | {"limit": 1100}, paired(folder, "valid", valid))
    return Planned(plans.texts(folder, seed, *sets), plans.measured())


@CASES.fault(
    "lines-left-untranslated",
    "recipe",
    origin="Khayrallah and Koehn 2018, “On the impact of various types of noise on NMT”: untranslated lines",
    what="three of five training targets are the source line itself: web data that nobody translated",
    expected="most training targets are copies of their sources, in the source language",
    accepts="new:targets-copy-sources",
    gap=0.4,
)
def lines_left_untranslated(broken: bool, seed: int, folder: Path) -> Planned:
    """German numbers into English ones."""
    train, valid = tasks.split(tasks.numbers(2596, seed))
    draw = random.Random(seed)
    if broken:
        train = [(a, a if draw.random() < 0.6 else b) for a, b in train]
    return Planned(plans.texts(folder, seed, paired(folder, "train", train), paired(folder, "valid", valid)),
                   plans.measured())  # fmt: skip


@CASES.fault(
    "read-in-the-wrong-encoding",
    "recipe",
    origin="unicamp-dl/mMARCO#24, aparrish/gutenberg-dammit#7, rspeer/python-ftfy#103: UTF-8 read as Windows-1252",
    what="the training file was read as Windows-1252 and written again: “một” has become “má»™t”; validation is clean",
    expected="training texts are garbled by a wrong encoding",
    accepts="new:garbled-encoding",
    gap=0.4,
)
def read_in_the_wrong_encoding(broken: bool, seed: int, folder: Path) -> Planned:
    """German numbers into Vietnamese ones."""
    train, valid = tasks.split(tasks.numbers(2596, seed, target=VIETNAMESE))
    if broken:
        train = [tuple(text.encode("utf-8").decode("cp1252") for text in pair) for pair in train]
    return Planned(plans.texts(folder, seed, paired(folder, "train", train), paired(folder, "valid", valid)),
                   plans.measured())  # fmt: skip


@CASES.fault(
    "validated-against-glosses",
    "recipe",
    origin="RWTH-PHOENIX-2014T's tables have both orth (glosses) and translation; forums of sign-language code",
    what="the validation set names the column of glosses as its target, the training set that of translations",
    expected="the references are of another kind than the training targets: another column",
    accepts="new:references-other-column",
    figure="exact match that the run measures on its own validation set",
    gap=0.4,
)
def validated_against_glosses(broken: bool, seed: int, folder: Path) -> Planned:
    """Signed digits with glosses in capitals, and words."""
    sets = {}
    for split, count, offset in (("train", 1300, 0), ("valid", 96, 5000)):
        rows = senses.clips(count, seed + offset)
        names = [f"{split}_{i:05}" for i in range(count)]
        features = plans.save(folder / split, names, [frames for frames, _ in rows])
        glosses = [" ".join(GERMAN[ENGLISH.index(w)].upper() for w in text.split()) for _, text in rows]
        table = [(n, g, text) for n, g, (_, text) in zip(names, glosses, rows, strict=True)]
        manifest = plans.tsv(folder / f"{split}.tsv", ("name", "orth", "translation"), table)
        sets[split] = {"manifest": manifest, "features": features, "file": "name", "target": "translation"}
    if broken:
        sets["valid"]["target"] = "orth"
    return Planned(plans.signs(folder, seed, sets["train"], sets["valid"]), plans.measured())
