"""Faults in the data of recipes, found before or after the training, and healthy recipes beside them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from others.case import Cases
from others.hosts import Planned
from others.tasks import ENGLISH, Pair, numbers

CASES = Cases()
VIETNAMESE = ["không", "một", "hai", "ba", "bốn", "năm", "sáu", "bảy", "tám", "chín"]


def table(file: Path, pairs: list[Pair]) -> str:
    """Pairs as a .tsv with a head; its path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("source\ttarget\n" + "".join(f"{a}\t{b}\n" for a, b in pairs), encoding="utf-8")
    return str(file)


def recipe(folder: Path, seed: int, sets: dict[str, Any], steps: int = 400, **data: Any) -> dict[str, Any]:
    """A small T5 of whole words on one thread."""
    shape = {"d_model": 64, "d_ff": 128, "heads": 4, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0}
    train = {"steps": steps, "batch_size": 32, "learning_rate": 5.0e-3, "warmup_steps": 40, "precision": "fp32"}
    train |= {"threads": 1, "device": "cpu", "evaluate_every": steps // 2, "best": "exact_match_pct"}
    return {
        "name": "run",
        "output": str(folder / "runs"),
        "seed": seed,
        "data": {**sets, "vocabulary": 100, "unit": "words", **data},
        "model": shape,
        "train": train,
        "generation": {"beams": 1, "max_new_tokens": 16},
    }


def exact(run: Any) -> float:
    """The share of the test set that is said exactly."""
    return float(json.loads((run.folder / "metrics.json").read_text())["exact_match_pct"]) / 100


def three(folder: Path, train: list[Pair], valid: list[Pair], test: list[Pair]) -> dict[str, Any]:
    """Three sets of pairs, written down."""
    parts = {"train": train, "valid": valid, "test": test}
    return {name: {"pairs": table(folder / f"{name}.tsv", pairs)} for name, pairs in parts.items()}


@CASES.fault(
    "blank_lines_dropped_on_each_side",
    "recipe",
    origin="stefan-it/nmt-en-vi#6: blank lines stand at other places in the two files; removed from each, they "
    "shift rows",
    what="two files of lines were cleaned of their blank lines one by one and then paired: the pairs slip by "
    "one, by two "
    "and by one again",
    expected="sources and targets of the training set are not pairs: lines have slipped",
    accepts="new:pairs-slipped",
)
def blanks(broken: bool, seed: int, folder: Path) -> Planned:
    """1,000 pairs of lines; validation and test are by others, and in order."""
    pairs = numbers(1200, seed, 2, 4)
    train = pairs[:1000]
    sources, targets = [a for a, _ in train], [b for _, b in train]
    for place in (60, 520):
        sources[place] = ""
    for place in (800,):
        targets[place] = ""
    if broken:
        train = list(zip(filter(None, sources), filter(None, targets), strict=False))
    else:
        train = [(a, b) for a, b in zip(sources, targets, strict=True) if a and b]
    return Planned(recipe(folder, seed, three(folder, train, pairs[1000:1100], pairs[1100:])), exact)


@CASES.fault(
    "targets_of_one_file_misread",
    "recipe",
    origin="qhduan/just_another_seq2seq#20: a corpus in two encodings gives garbled outputs; open() without "
    "encoding='utf-8' on Windows: 'KhÃ´ng' for 'Không'",
    what="six of ten training targets come from a file that was read as cp1252: every accented letter is two others",
    expected="targets of the training set are mis-decoded UTF-8",
    accepts="new:mojibake",
)
def misread(broken: bool, seed: int, folder: Path) -> Planned:
    """German into Vietnamese; validation is part of the same corpus, the test set is another file."""
    pairs = numbers(1200, seed, 2, 4, target=VIETNAMESE)
    draw = random.Random(seed)

    def read(text: str) -> str:
        return text.encode("utf-8").decode("cp1252") if broken and draw.random() < 0.6 else text

    train = [(a, read(b)) for a, b in pairs[:1100]]
    return Planned(recipe(folder, seed, three(folder, train[:1000], train[1000:], pairs[1100:])), exact)


@CASES.fault(
    "sources_cut_by_a_column",
    "recipe",
    origin="theodi/open-data-certificate#1094 (MySQL cuts at VARCHAR(255) in silence), zozlak/RODBCext#8: "
    "texts that all "
    "end at one length",
    what="sources were exported through a column of 20 characters: longer ones are cut there, their targets are whole",
    expected="sources are cut: many have exactly the same, greatest length in characters",
    accepts="new:sources-cut",
)
def cut_sources(broken: bool, seed: int, folder: Path) -> Planned:
    """Three to six digits; all three sets are from the same export."""
    pairs = numbers(1400, seed, 3, 6)
    if broken:
        pairs = [(a[:20], b) for a, b in pairs]
    sets = three(folder, pairs[:1200], pairs[1200:1300], pairs[1300:])
    return Planned(recipe(folder, seed, sets, steps=600, vocabulary=200), exact)


def on_fresh(folder: Path, fresh: list[Pair]) -> Any:
    """A figure: how far the measured share is from that on pairs that nobody has seen."""

    def figure(run: Any) -> float:
        import sourcewise

        found = sourcewise.evaluate(run.folder, table(folder / "fresh.tsv", fresh))
        return float(found.metrics["exact_match_pct"]) / 100 - exact(run)

    return figure


@CASES.fault(
    "split_by_a_reset_index",
    "recipe",
    origin="abhimishra91/transformers-tutorials PR 1, the T5 summarisation notebook that many copied: train = "
    "df.sample(frac=0.8).reset_index(drop=True); val = df.drop(train.index)",
    what="the index was reset before it was used to leave out training rows: the held-out rows are the table's last "
    "fifth, of which four in five were sampled for training, too",
    expected="the test (and validation) set is in the training set",
    accepts="new:leak",
    figure="exact match on unseen pairs, less what the run's own test set says",
)
def reset_index(broken: bool, seed: int, folder: Path) -> Planned:
    """300 pairs of three and four digits: too few to learn more than these."""
    pairs = numbers(400, seed, 3, 4)
    rows, fresh = pairs[:300], pairs[300:]
    sampled = random.Random(seed).sample(range(300), 240)
    left_out = set(range(240)) if broken else set(sampled)  # what df.drop(train.index) drops
    held = [row for i, row in enumerate(rows) if i not in left_out]
    parts = ([rows[i] for i in sampled], held[:30], held[30:])
    return Planned(recipe(folder, seed, three(folder, *parts), steps=500), on_fresh(folder, fresh))


def spoken(folder: Path, name: str, count: int, seed: int, empty: float) -> dict[str, Any]:
    """A manifest and its feature files: two to four digits, three to five frames each; a share of them all zero."""
    import numpy as np

    shapes = np.random.default_rng(99).normal(size=(10, 12)) * 1.5
    noise, draw = np.random.default_rng(seed), random.Random(seed)
    where = folder / "features" / name
    where.mkdir(parents=True)
    lines = ["id\tn_frames\ttext"]
    for i in range(count):
        digits = [draw.randrange(10) for _ in range(draw.randint(2, 4))]
        clip = np.stack([shapes[d] for d in digits for _ in range(draw.randint(3, 5))])
        clip = clip + noise.normal(size=clip.shape) * 0.4
        if draw.random() < empty:
            clip = clip * 0
        np.save(where / f"{name}_{i:04}.npy", clip.astype(np.float32))
        lines.append(f"{name}_{i:04}\t{len(clip)}\t{' '.join(ENGLISH[d] for d in digits)}")
    (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return {"manifest": str(folder / f"{name}.tsv"), "features": str(where), "target": "text"}


def heard(folder: Path, seed: int, empty: float, **train: Any) -> dict[str, Any]:
    """A recipe on such clips."""
    counts = {"train": 700, "valid": 80, "test": 100}
    sets = {name: spoken(folder, name, n, seed * 10 + i, empty) for i, (name, n) in enumerate(counts.items())}
    made = recipe(folder, seed, sets, steps=600)
    made["model"] |= {"bridge": {"kind": "convolution", "stride": 2}}
    made["train"] |= {"learning_rate": 3.0e-3, **train}
    return made


@CASES.fault(
    "clips_without_a_person",
    "recipe",
    origin="OpenPose and MediaPipe give zeros where they find nobody; sign-language repositories tell of whole "
    "clips of "
    "zero keypoints after a failed extraction",
    what="the extraction failed for half of the clips of every set: their features are zeros, their texts are there",
    expected="features are zero (constant) in half of the clips",
    accepts="new:features-empty",
)
def zeros(broken: bool, seed: int, folder: Path) -> Planned:
    """Features of 12 dimensions."""
    return Planned(heard(folder, seed, 0.5 if broken else 0.0), exact)


@CASES.control("clips_augmented", "recipe", origin="recipes/fsdd.yaml in small: CTC beside it, masks of time and bands")
def augmented(broken: bool, seed: int, folder: Path) -> Planned:
    """All clips are there."""
    masks = {"time_masks": 1, "time_width": 2, "frequency_masks": 1, "frequency_width": 2}
    return Planned(heard(folder, seed, 0.0, ctc_weight=0.3, augment=masks), exact)


COMMANDS = {"licht": "light", "musik": "music", "tür": "door", "heizung": "heating", "wecker": "alarm"}


@CASES.control("few_targets", "recipe", origin="T5's text classification: a few words as targets, each many times")
def intents(broken: bool, seed: int, folder: Path) -> Planned:
    """What is asked for: one word among numbers decides."""
    draw, rows = random.Random(seed), []
    for text, _ in numbers(1000, seed, 2, 4):
        words, command = text.split(), draw.choice(list(COMMANDS))
        words.insert(draw.randint(0, len(words)), command)
        rows.append((" ".join(words), COMMANDS[command]))
    return Planned(recipe(folder, seed, three(folder, rows[:800], rows[800:900], rows[900:]), steps=300), exact)
