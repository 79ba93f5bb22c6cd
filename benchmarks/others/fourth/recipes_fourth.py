"""Recipes and their data: six faults."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from others import hosts, speech, tasks
from others.case import Cases
from others.tasks import ENGLISH, FRENCH

CASES = Cases()


def table(file: Path, rows: Sequence[Sequence[str]], columns: Sequence[str] = ("source", "target")) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join("\t".join(row) + "\n" for row in [columns, *rows]), encoding="utf-8")
    return str(file)


def recipe(folder: Path, name: str, seed: int, train: Any, valid: Any, **more: Any) -> dict[str, Any]:
    """A small model from scratch; `more` is the section train's."""
    steps, family = more.pop("steps", 300), more.pop("family", "bart")
    model = {
        "family": family,
        "d_model": 64,
        "d_ff": 128,
        "heads": 4,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "dropout": 0.0,
    }
    if "manifest" in train:
        model["bridge"] = {"kind": "convolution", "stride": 4}
    options = {"steps": steps, "batch_size": 32, "learning_rate": 4.0e-3, "warmup_steps": 30, "threads": 1}
    options |= {"evaluate_every": steps // 2, "evaluate_examples": 96, "precision": "fp32", "best": "exact_match_pct"}
    return {
        "name": name,
        "output": str(folder / "runs"),
        "seed": seed,
        "data": {"train": train, "valid": valid, "vocabulary": 80, "unit": "words", "max_source": 32, "max_target": 16},
        "model": model,
        "train": options | more,
        "generation": {"beams": 1, "max_new_tokens": 12},
    }


def exact(data: Any = None, **options: Any) -> Any:
    """The share of exact outputs of a run on `data`, or on its own validation set."""

    def figure(run: Any) -> float:
        import sourcewise

        if data is None:
            return float(run.metrics()["exact_match_pct"]) / 100
        return float(sourcewise.evaluate(run.folder, data, **options).metrics["exact_match_pct"]) / 100

    return figure


@CASES.fault(
    "blank-lines-removed-apart",
    "recipe",
    origin="https://github.com/stefan-it/nmt-en-vi/issues/6 (blank lines removed in each file: train.en and train.vi "
    "are no longer parallel)",
    what="a blank line was dropped on one side only: from there on, each source stands beside the next one's target",
    expected="sources and targets are shifted against each other from a row on",
    accepts="new:pairs-shifted",
)
def blank_lines_removed_apart(broken: bool, seed: int, folder: Path) -> Any:
    train, valid = tasks.split(tasks.numbers(2100, seed))
    sources, targets = [a for a, _ in train], [b for _, b in train]
    if broken:
        del targets[150]
    pairs = table(folder / "train.tsv", list(zip(sources, targets, strict=False)))
    held = table(folder / "valid.tsv", valid)
    return hosts.Planned(recipe(folder, "shifted", seed, {"pairs": pairs}, {"pairs": held}, family="rnn"), exact(held))


# 2, 3 ----------------------------------------------------------------------------------------------------------


def clips(folder: Path, name: str, count: int, seed: int, change: Any = lambda frames: frames) -> dict[str, str]:
    """A manifest and features of spoken numbers, 16 bands, twelve frames a word."""
    draw, noise, spoken = random.Random(seed), np.random.default_rng([6, seed]), speech.sounds()
    (folder / name).mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(count):
        digits = [draw.randrange(10) for _ in range(draw.randint(2, 4))]
        frames = np.concatenate([np.repeat(spoken[digit].T[:6], 2, 0) for digit in digits])
        frames = 3 + frames + 0.2 * noise.normal(size=frames.shape)
        np.save(folder / name / f"{name}_{i:05d}.npy", change(frames).astype(np.float32))
        lines.append((f"{name}_{i:05d}", " ".join(ENGLISH[digit] for digit in digits)))
    manifest = table(folder / f"{name}.tsv", lines, ("id", "text"))
    return {"manifest": manifest, "features": str(folder / name)}


@CASES.fault(
    "validation-at-half-the-frame-rate",
    "recipe",
    origin="https://github.com/avoskou/Stochastic-Transformer-Networks-with-Linear-Competing-Units-Application-to-"
    "end-to-end-SL-Translatio/issues/5 (own features of other frames are much worse); frame_subsampling_ratio in "
    "https://github.com/neccam/slt",
    what="the validation clips were extracted with every second frame only, the training clips with all",
    expected="validation clips have another frame rate than training clips: half as many frames a word",
    accepts="new:frame-rate",
)
def validation_at_half_rate(broken: bool, seed: int, folder: Path) -> Any:
    train = clips(folder, "train", 1200, seed)
    valid = clips(folder, "valid", 96, seed + 1000, (lambda frames: frames[::2]) if broken else (lambda frames: frames))
    return hosts.Planned(
        recipe(folder, "rates", seed, train, valid, steps=240, family="rnn"),
        exact(valid["manifest"], features=valid["features"]),
    )


@CASES.fault(
    "validation-in-bytes",
    "recipe",
    origin="https://github.com/sgrvinod/a-PyTorch-Tutorial-to-Image-Captioning/issues/101 (the same caption for all: "
    "imresize gives 0 to 1, training had 0 to 255)",
    what="the validation clips are in 0 to 255, the training clips in 0 to 1",
    expected="validation features have another scale than training features",
    accepts="new:feature-scale",
)
def validation_in_bytes(broken: bool, seed: int, folder: Path) -> Any:
    train = clips(folder, "train", 1200, seed, lambda frames: frames / 8)
    valid = clips(folder, "valid", 96, seed + 1000, lambda frames: frames / 8 * (255 if broken else 1))
    return hosts.Planned(
        recipe(folder, "bytes", seed, train, valid, steps=240, family="rnn"),
        exact(valid["manifest"], features=valid["features"]),
    )


@CASES.fault(
    "two-target-languages-untold",
    "recipe",
    origin="https://github.com/facebookresearch/fairseq/issues/1123 (outputs of one-to-many hold "
    "Hindi and Bengali both)",
    what="the table holds rows into two languages, with a column that says which; it is neither filtered nor told to "
    "the model",
    expected="targets are of two languages and nothing in the source says which",
    accepts="new:languages-mixed",
)
def two_target_languages(broken: bool, seed: int, folder: Path) -> Any:
    draw, rows = random.Random(seed), []
    train, valid = tasks.split(tasks.numbers(2100, seed, 3, 5))
    for source, target in train:
        french = " ".join(FRENCH[ENGLISH.index(word)] for word in target.split())
        rows += [(source, target, "en"), (source, french, "fr")]
    draw.shuffle(rows)
    pairs = table(folder / "train.tsv", rows, ("source", "target", "lang"))
    held = table(folder / "valid.tsv", [(a, b, "en") for a, b in valid], ("source", "target", "lang"))
    data = {"pairs": pairs} if broken else {"pairs": pairs, "where": {"lang": "en"}}
    return hosts.Planned(recipe(folder, "languages", seed, data, {"pairs": held}), exact(held))


@CASES.fault(
    "source-is-the-id-column",
    "recipe",
    origin="https://github.com/huggingface/transformers/pull/11673 (--text_column; "
    "run_summarization.py takes the first "
    "column where it is not named)",
    what="the column named as source is the running id of the row, not its text",
    expected="the source column says nothing of the target: every source is another number",
    accepts="new:wrong-column",
)
def source_is_the_id_column(broken: bool, seed: int, folder: Path) -> Any:
    train, valid = tasks.split(tasks.numbers(2100, seed))
    columns = ("id", "text", "summary")
    files = [
        table(folder / f"{name}.tsv", [(f"{name}-{i:05d}", a, b) for i, (a, b) in enumerate(half)], columns)
        for name, half in (("train", train), ("valid", valid))
    ]
    named = {"source": "id" if broken else "text", "target": "summary"}
    sets = [{"pairs": file, **named} for file in files]
    plan = recipe(folder, "columns", seed, *sets, family="rnn", steps=350)
    plan["data"] |= {"unit": "subwords", "vocabulary": 300, "max_target": 24}
    plan["generation"]["max_new_tokens"] = 20
    return hosts.Planned(plan, exact(files[1], **named))


@CASES.fault(
    "answer-in-the-prompt",
    "recipe",
    origin="https://github.com/ZzZZCHS/Chat-Scene/issues/49 (input to output leakage during training)",
    what="in the training and validation tables the prompt holds the answer too; in use it does not",
    expected="the target stands in its own source: the model copies it",
    accepts="new:target-in-source",
)
def answer_in_the_prompt(broken: bool, seed: int, folder: Path) -> Any:
    train, rest = tasks.split(tasks.numbers(2200, seed), 192)
    valid, test = rest[:96], rest[96:]

    def prompted(pairs: Sequence[tasks.Pair]) -> list[tuple[str, str]]:
        return [(f"frage {a} antwort {b if broken else ''}".strip(), b) for a, b in pairs]

    files = [table(folder / f"{n}.tsv", prompted(half)) for n, half in (("train", train), ("valid", valid))]
    used = table(folder / "test.tsv", [(f"frage {a} antwort", b) for a, b in test])
    plan = recipe(folder, "answers", seed, {"pairs": files[0]}, {"pairs": files[1]}, steps=350, family="rnn")
    return hosts.Planned(plan, exact(used), data=Path(used))
