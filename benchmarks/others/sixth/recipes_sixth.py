"""Recipes, and the data that people give them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from others import tasks
from others.case import Cases
from others.hosts import Planned
from others.tasks import ENGLISH, FRENCH, GERMAN, Pair

CASES = Cases()
RUSSIAN = ["ноль", "один", "два", "три", "четыре", "пять", "шесть", "семь", "восемь", "девять"]
BANDS, WORD = 12, 6  # a sign or a spoken digit is six frames


def exact(run: Any) -> float:
    """The share of outputs that are exactly the reference, of the run's final evaluation."""
    return float(json.loads((run.folder / "metrics.json").read_text())["exact_match_pct"]) / 100


def recipe(folder: Path, seed: int, data: dict[str, Any], bridge: bool = False, **train: Any) -> dict[str, Any]:
    """A small network from scratch."""
    model: dict[str, Any] = {"d_model": 64, "d_ff": 128, "heads": 4, "encoder_layers": 2, "decoder_layers": 1}
    if bridge:
        model["bridge"] = {"kind": "convolution", "stride": 3}
    return {
        "name": "run",
        "output": str(folder / "runs"),
        "seed": seed,
        "data": {"vocabulary": 64, **data},
        "model": {**model, "dropout": 0.0},
        "train": {
            "steps": 400,
            "batch_tokens": 1024,
            "learning_rate": 3e-3,
            "warmup_steps": 60,
            "evaluate_every": 200,
            "evaluate_examples": 64,
            "best": "exact_match_pct",
            "precision": "fp32",
            "threads": 1,
            **train,
        },
        "generation": {"beams": 1, "max_new_tokens": 16},
    }


def table(file: Path, rows: Sequence[Pair], change: Callable[[str], str] = str) -> str:
    """A .tsv of pairs; `change` is made to sources."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = ["source\ttarget", *(f"{change(source)}\t{target}" for source, target in rows)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(file)


def clips(
    folder: Path, split: str, count: int, seed: int, change: Callable[[np.ndarray], np.ndarray] | None = None
) -> dict[str, Any]:
    """A manifest and its .npy files: three to five digits as patterns over bands; `change` is made to each matrix."""
    draw, noise = random.Random(seed), np.random.default_rng([21, seed])
    signs = np.random.default_rng(23).normal(size=(10, WORD, BANDS))
    place = folder / "features" / split
    place.mkdir(parents=True, exist_ok=True)
    lines = ["id\ttext\tgloss"]
    for i in range(count):
        digits = [draw.randrange(10) for _ in range(draw.randint(3, 5))]
        frames = np.concatenate([signs[d] for d in digits]) + 0.2 * noise.normal(size=(WORD * len(digits), BANDS))
        np.save(place / f"{split}_{i:04}.npy", (frames if change is None else change(frames)).astype(np.float32))
        text, gloss = " ".join(ENGLISH[d] for d in digits), " ".join(GERMAN[d].upper() for d in digits)
        lines.append(f"{split}_{i:04}\t{text}\t{gloss}")
    manifest = folder / f"{split}.tsv"
    manifest.write_text("\n".join(lines) + "\n")
    return {"manifest": str(manifest), "features": str(place)}


def as_text(frames: np.ndarray) -> np.ndarray:
    """The frames in the order in which sorted(os.listdir()) gives 0.jpg, 1.jpg, 10.jpg, 11.jpg, 2.jpg, …"""
    return frames[sorted(range(len(frames)), key=str)]


@CASES.fault(
    "frames-sorted-as-text",
    "recipe",
    origin="github.com/jfzhang95/pytorch-video-recognition, issue 30; github.com/zhoubolei/moments_models, issue 18; "
    "github.com/universome/stylegan-v, issue 43: frame1, frame10, frame11, frame2",
    what="the frames of the training clips were read with sorted(os.listdir()), so that frame 10 comes before frame 2; "
    "those of the validation clips are in order",
    expected="the frames of the training set are not in the order of time, or the two sets are not alike",
    accepts="new:frames-out-of-order",
)
def as_text_sorted(broken: bool, seed: int, folder: Path) -> Planned:
    """Features to text from scratch."""
    train = clips(folder, "train", 900, seed, as_text if broken else None)
    data = {"train": train, "valid": clips(folder, "valid", 96, seed + 1000), "max_target": 16}
    return Planned(recipe(folder, seed, data, bridge=True), exact)


@CASES.fault(
    "validation-at-twice-the-rate",
    "recipe",
    origin="github.com/joonson/syncnet_python, issue 21; github.com/YudongGuo/AD-NeRF, issue 117: frame rates of "
    "training "
    "and test have to agree",
    what="the validation clips were read at 50 frames a second, the training clips at 25",
    expected="the frame rate of the two sets differs by a factor of two",
    accepts="new:other-frame-rate",
)
def rate(broken: bool, seed: int, folder: Path) -> Planned:
    """Features to text from scratch."""

    def twice(frames: np.ndarray) -> np.ndarray:
        between = (frames + np.concatenate((frames[1:], frames[-1:]))) / 2
        return np.stack((frames, between), 1).reshape(-1, BANDS)

    valid = clips(folder, "valid", 96, seed + 1000, twice if broken else None)
    data = {"train": clips(folder, "train", 900, seed), "valid": valid, "max_target": 16}
    return Planned(recipe(folder, seed, data, bridge=True), exact)


@CASES.fault(
    "glosses-for-text",
    "recipe",
    origin="github.com/Signbank/Global-signbank, issue 239 (the wrong gloss field); "
    "github.com/ryanwongsa/Sign2GPT, issue 20: "
    "manifests with a column of glosses and one of text",
    what="the training set's target column is the gloss (DREI NULL ACHT), the validation set's is the text (three zero "
    "eight)",
    expected="the two sets have targets of another kind: another column",
    accepts="new:other-target-column",
    also="DAT006",  # true: lower-case letters are not in a tokenizer of glosses
)
def glosses(broken: bool, seed: int, folder: Path) -> Planned:
    """Features to text from scratch."""
    train = clips(folder, "train", 900, seed) | {"target": "gloss" if broken else "text"}
    valid = clips(folder, "valid", 96, seed + 1000) | {"target": "text"}
    return Planned(recipe(folder, seed, {"train": train, "valid": valid, "max_target": 16}, bridge=True), exact)


FILLERS = [
    "the",
    "caller",
    "said",
    "after",
    "a",
    "long",
    "while",
    "that",
    "it",
    "was",
    "late",
    "and",
    "that",
    "the",
    "number",
    "to",
    "call",
    "back",
    "would",
    "be",
    "this",
    "one",
]


def calls(count: int, seed: int) -> list[Pair]:
    """Long sources with their number at the end."""
    draw = random.Random(seed)
    found = []
    for source, target in tasks.numbers(count, seed, 2, 4):
        filler = [draw.choice(FILLERS) for _ in range(draw.randint(8, 10))]
        found.append((" ".join([*filler, ":", source]), target))
    return found


@CASES.fault(
    "answer-behind-the-cut",
    "recipe",
    origin="github.com/harvardnlp/encoder-agnostic-adaptation, issue 3 (90 % of the sources are longer than the cut); "
    "github.com/mindsdb/mindshub, issue 4491; github.com/zjunlp/DeepKE, issue 568",
    what="sources are cut at 8 tokens, and what the target is made of stands behind them",
    expected="sources are cut: most of them, and what is needed is cut off",
    accepts="new:sources-cut",
)
def cut(broken: bool, seed: int, folder: Path) -> Planned:
    """Text to text from scratch, whole words."""
    train, valid = tasks.split(calls(1600, seed))
    data = {
        "train": {"pairs": table(folder / "train.tsv", train)},
        "valid": {"pairs": table(folder / "valid.tsv", valid)},
    }
    data |= {"unit": "words", "max_source": 8 if broken else 24, "max_target": 16}
    return Planned(recipe(folder, seed, data, steps=600, batch_tokens=1536), exact)


@CASES.fault(
    "training-read-as-latin-1",
    "recipe",
    origin="github.com/qhduan/just_another_seq2seq, pull request 20 (two encodings in one corpus); "
    "github.com/unicamp-dl/"
    "mMARCO, issue 24 (latin-1 that claims to be UTF-8)",
    what="the training sources were in Windows-1251 and were read as latin-1 (îäèí for один); the validation set "
    "is right",
    expected="sources of the training set are in a wrong encoding, or the two sets have other characters",
    accepts="new:wrong-encoding",
)
def encoding(broken: bool, seed: int, folder: Path) -> Planned:
    """Russian number words to English ones; the tokenizer is trained on the training set."""
    english = dict(zip(GERMAN, ENGLISH, strict=True))
    draw = tasks.numbers(1600, seed, 2, 5, RUSSIAN)
    train, valid = tasks.split([(russian, " ".join(english[w] for w in german.split())) for german, russian in draw])

    def spoilt(text: str) -> str:
        return text.encode("cp1251").decode("latin-1") if broken else text

    data: dict[str, Any] = {"train": {"pairs": table(folder / "train.tsv", train, spoilt)}}
    data |= {"valid": {"pairs": table(folder / "valid.tsv", valid)}, "vocabulary": 160, "max_target": 24}
    return Planned(recipe(folder, seed, data), exact)


@CASES.fault(
    "two-languages-no-tag",
    "recipe",
    origin="github.com/facebookresearch/fairseq, issues 1123 and 864: one model for two target languages, whose "
    "outputs "
    "are in both",
    what="a mixture of two target languages without a tag, prefix or language code: the same source has two "
    "targets, and "
    "nothing says which is wanted",
    expected="nothing tells the target language: sources are the same for different targets",
    accepts="new:target-language-untold",
)
def untold(broken: bool, seed: int, folder: Path) -> Planned:
    """English digits to German and French ones."""
    draw = tasks.numbers(1400, seed, 2, 4, list(map(str, range(10))))
    english = [" ".join(ENGLISH[int(digit)] for digit in digits.split()) for _, digits in draw]
    sets: dict[str, list[dict[str, Any]]] = {"train": [], "valid": []}
    for name, words in (("de", GERMAN), ("fr", FRENCH)):
        targets = [" ".join(words[int(digit)] for digit in digits.split()) for _, digits in draw]
        rows = tasks.split(list(zip(english, targets, strict=True)), 64)
        for split, part in zip(("train", "valid"), rows, strict=True):
            one: dict[str, Any] = {"pairs": table(folder / f"{split}.en-{name}.tsv", part), "name": f"en-{name}"}
            if not broken:
                one["prefix"] = f"<{name}> "
            sets[split].append(one | ({"metric": "exact_match_pct"} if split == "valid" else {}))

    def share(run: Any) -> float:
        lines = (run.folder / "translations.tsv").read_text().splitlines()
        head = lines[0].split("\t")
        rows = [dict(zip(head, line.split("\t"), strict=False)) for line in lines[1:]]
        return sum(row["reference"] == row["output"] for row in rows) / len(rows)

    data = {**sets, "unit": "words", "max_target": 16}
    return Planned(recipe(folder, seed, data, steps=500, best="tasks_mean"), share)
