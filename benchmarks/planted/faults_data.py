"""Faults in files: what extractors, scripts and spreadsheets do to a training set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from planted.fault import Fault, Spoil, fault
from planted.material import Material, Row

FEATURES = ("digits t5", "fsdd t5")
TEXTS = ("dates rnn", "multi30k rnn")
BOTH = ("digits rnn", "dates decoder", "digits decoder", "dates t5")


def everywhere(change: Callable[[list[Row], np.random.Generator], list[Row]]) -> Spoil:
    """The same slip in training and validation set, as one script makes it."""
    return lambda given, rng: Material(change(given.train, rng), change(given.valid, rng))


def in_training(change: Callable[[list[Row], np.random.Generator], list[Row]]) -> Spoil:
    """In the training set alone."""
    return lambda given, rng: Material(change(given.train, rng), given.valid)


# ── which source goes with which target ───────────────────────────────────────────────────────────────────────────────


def shuffled(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    return _with_targets(rows, [rows[i].target for i in rng.permutation(len(rows))])


def slipped(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    """One target is missing a third of the way down: from there on each source has the next one's."""
    targets, gap = [row.target for row in rows], len(rows) // 3
    return _with_targets(rows, targets[:gap] + targets[gap + 1 :] + targets[gap : gap + 1])


def other_clips(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    """Each file holds another row's features; nobody wrote down how long they are."""
    order = rng.permutation(len(rows))
    return [replace(row, matrix=rows[i].matrix, frames=None) for row, i in zip(rows, order, strict=True)]


def columns_swapped(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    return [replace(row, source=row.target, target=row.source) for row in rows]


def _with_targets(rows: list[Row], targets: Sequence[str]) -> list[Row]:
    return [replace(row, target=target) for row, target in zip(rows, targets, strict=True)]


# ── sources ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def all_zero(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    return [replace(row, matrix=np.zeros_like(row.features)) for row in rows]


def some_zero(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    """The extractor died after three clips of ten."""
    alive = len(rows) * 3 // 10
    return rows[:alive] + all_zero(rows[alive:], rng)


def not_a_number(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    row = rows[len(rows) // 2]
    matrix = row.features
    matrix[1, 0] = np.nan
    return [replace(r, matrix=matrix) if r is row else r for r in rows]


def one_clip(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    """Every file holds the same clip, cut or repeated to the length of its own."""
    clip = rows[0].features
    return [replace(row, matrix=np.resize(clip, row.features.shape).astype(np.float32)) for row in rows]


def other_frames(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    """The manifest counts frames at another rate."""
    return [replace(row, frames=2 * (row.frames or 0)) for row in rows]


def scaled(factor: float) -> Callable[[list[Row], np.random.Generator], list[Row]]:
    return lambda rows, rng: [replace(row, matrix=row.features * np.float32(factor)) for row in rows]


def exploding(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    """One clip of a hundred has a frame of 1e6."""
    out = []
    for i, row in enumerate(rows):
        if i % 100 == 7:
            matrix = row.features
            matrix[len(matrix) // 2] = 1e6
            row = replace(row, matrix=matrix)
        out.append(row)
    return out


def without_sources(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    """The column of the task's name was taken for the source."""
    return [replace(row, source="translate") for row in rows]


def first_words(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    """Only the first word of each source was exported."""
    return [replace(row, source=row.source.split()[0] if row.source else "") for row in rows]


# ── targets ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def one_target(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    """Six of ten targets are those of the first row."""
    return [replace(row, target=rows[0].target) if rng.random() < 0.6 else row for row in rows]


def one_token(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    """Targets are filled up with a word."""
    return [replace(row, target=row.target.split()[0][:4] + " um" * 36) for row in rows]


def untranslated(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    """The source was written into both columns."""
    return [replace(row, target=row.source) for row in rows]


def with_source(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    """Source and answer were joined, as a decoder-only model is trained, and the loss counts both."""
    return [replace(row, target=f"{row.source} {row.target}") for row in rows]


# ── the set as a whole ────────────────────────────────────────────────────────────────────────────────────────────────


def copies(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    """Six of ten rows are copies of others."""
    few = rows[: len(rows) * 4 // 10]
    return [replace(few[i % len(few)], id=row.id) for i, row in enumerate(rows)]


def leaked(given: Material, rng: np.random.Generator) -> Material:
    """The validation set was cut out of the training set."""
    return Material(given.train, [replace(row, id=f"again_{row.id}") for row in given.train[: len(given.valid)]])


def few(given: Material, rng: np.random.Generator) -> Material:
    """Somebody left the limit of a test run in."""
    return Material(given.train[:40], given.valid)


FAULTS: tuple[Fault, ...] = (
    fault(
        "shuffled manifest",
        "the manifest's targets were sorted otherwise than its files",
        "DAT003",
        FEATURES,
        spoil=everywhere(shuffled),
    ),
    fault("shuffled pairs", "one column of the table was sorted alone", "DAT003", TEXTS, spoil=everywhere(shuffled)),
    fault(
        "off by one line",
        "a line is missing on one side, from a third of the file on",
        "DAT003",
        ("dates decoder", "fsdd t5", "dates t5"),
        spoil=in_training(slipped),
    ),
    fault(
        "another clip", "features were saved under other rows' names", "DAT003", FEATURES, spoil=everywhere(other_clips)
    ),
    fault(
        "one clip for all",
        "the extractor was given the same clip each time",
        "DAT012",
        FEATURES,
        spoil=everywhere(one_clip),
    ),
    fault("all-zero features", "the extractor wrote zeros", "DAT011", FEATURES, spoil=everywhere(all_zero)),
    fault(
        "mostly zero features",
        "the extractor died after three clips of ten",
        "DAT011",
        FEATURES,
        spoil=in_training(some_zero),
    ),
    fault("NaN features", "one clip has a NaN", "DAT001 WIR001", FEATURES, spoil=in_training(not_a_number)),
    fault(
        "other frames", "the manifest counts frames at another rate", "DAT001", FEATURES, spoil=everywhere(other_frames)
    ),
    fault(
        "features x100",
        "features are not standardised, and 100 times too large",
        "DAT013",
        FEATURES,
        spoil=everywhere(scaled(100)),
        options={"model.bridge.normalize": False},
    ),
    fault(
        "features /1000",
        "features are not standardised, and 1,000 times too small",
        "DAT013",
        FEATURES,
        spoil=everywhere(scaled(1e-3)),
        options={"model.bridge.normalize": False},
    ),
    fault(
        "exploding features",
        "one clip of a hundred has a frame of 1e6",
        "DAT014",
        FEATURES,
        spoil=in_training(exploding),
    ),
    fault("same source", "the wrong column was read as source", "DAT002", TEXTS, spoil=everywhere(without_sources)),
    fault(
        "first words only",
        "sources were cut to their first word on export",
        "DAT002 DAT009",
        TEXTS,
        spoil=everywhere(first_words),
    ),
    fault("one target", "six of ten targets are the same", "DAT004", BOTH, spoil=in_training(one_target)),
    fault(
        "one token",
        "nine of ten target tokens are the same",
        "DAT005",
        ("digits rnn", "dates t5"),
        spoil=everywhere(one_token),
        options={"data.max_target": 64, "generation.max_new_tokens": 64},
    ),
    fault(
        "untranslated targets",
        "the training targets are the sources",
        "DAT016 OUT008",
        ("dates decoder", "multi30k rnn"),
        spoil=in_training(untranslated),
        options={"data.max_target": 64, "generation.max_new_tokens": 64},
    ),
    fault("copies", "six of ten rows are copies", "DAT010", TEXTS, spoil=in_training(copies)),
    fault("train is valid", "the validation set is part of the training set", "DAT008", BOTH, spoil=leaked),
    fault(
        "forty examples",
        "a limit was left in: 40 examples, seen hundreds of times",
        "DAT015 TRN010",
        ("digits t5", "dates t5"),
        spoil=few,
    ),
)
