"""DAT021: near copies of sources in both splits, of texts and of clips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.diagnosis.rules.leaking import clips, found, levels, rows, texts, walks

CODE = "DAT021"


def another_word(text: str) -> str:
    words = text.split()
    return " ".join([*words[:4], "other", *words[5:]])


@pytest.mark.parametrize(
    "change",
    [
        another_word,
        lambda text: text.upper() + " !",
        lambda text: " ".join(text.split()[1:]),
        lambda text: text.replace("o", "0", 2),
        lambda text: f"well, {text}",
    ],
)
@pytest.mark.parametrize("with_target", [True, False])
def test_near_copied_texts_are_told_with_their_rows(
    tmp_path: Path, change: Callable[[str], str], with_target: bool
) -> None:
    train, valid = rows(400, 0), rows(80, 1)
    for i in range(8):
        valid[2 * i]["source"] = change(train[5 * i]["source"])
        if with_target:
            valid[2 * i]["target"] = train[5 * i]["target"]
    finding = found(texts(tmp_path, train, valid=valid))[CODE]
    assert finding.level == "warning"
    assert "8 of 80 validation sources" in finding.evidence
    assert "lines 2 (train.tsv:2), 4 (train.tsv:7), 6 (train.tsv:12), …" in finding.evidence


def test_few_near_copies_are_a_note_and_of_the_test_set_too(tmp_path: Path) -> None:
    train, test = rows(400, 0), rows(80, 2)
    for i in range(3):
        test[i]["source"] = another_word(train[i]["source"])
    finding = found(texts(tmp_path, train, valid=rows(80, 1), test=test))[CODE]
    assert finding.level == "note" and "test.tsv: 3 of 80 test sources" in finding.evidence


def test_sets_augmented_before_the_split_are_told(tmp_path: Path) -> None:
    every = [variant for row in rows(120, 0) for variant in (row, {**row, "source": another_word(row["source"])})]
    order = np.random.default_rng(3).permutation(len(every))
    train, valid = ([every[i] for i in part] for part in (order[:180], order[180:]))
    assert levels(texts(tmp_path, train, valid=valid)).get(CODE) in ("note", "warning")


def templates(size: int, seed: int) -> list[dict[str, str]]:
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, 10_000, (size, 2))
    return [
        {"source": f"transfer {a} pounds to the account with the number {b}", "target": f"transfer({a}, {b})"}
        for a, b in numbers
    ]


def strings(size: int, seed: int) -> list[dict[str, str]]:
    rng = np.random.default_rng(seed)
    said = ["".join(rng.choice(list("abcde"), rng.integers(4, 9))) for _ in range(size)]
    return [{"source": text, "target": text[::-1]} for text in said]


@pytest.mark.parametrize("make", [templates, strings, rows])
def test_what_is_alike_by_nature_is_silent(tmp_path: Path, make: Callable[[int, int], list[dict[str, str]]]) -> None:
    assert levels(texts(tmp_path, make(400, 0), valid=make(80, 1)), CODE) == {}


def noisy(matrix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return matrix + 0.1 * matrix.std(0) * rng.normal(size=matrix.shape)


def loud(matrix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return matrix + 0.25 * matrix.std() * rng.normal(size=matrix.shape)


def cropped(matrix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    start = int(rng.integers(1, len(matrix) // 3))
    return matrix[start : start + 2 * len(matrix) // 3]


def shifted(matrix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    start = int(rng.integers(3, len(matrix) // 3))
    tail = matrix[-1] + np.cumsum(rng.normal(size=(start, matrix.shape[1])), axis=0)
    return np.concatenate((matrix[start:], tail))


def half_precision(matrix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return matrix.astype(np.float16)[2:]


@pytest.mark.parametrize("change", [noisy, loud, cropped, shifted, half_precision])
def test_near_copied_clips_are_told_with_their_rows(tmp_path: Path, change: Callable[..., np.ndarray]) -> None:
    rng = np.random.default_rng(9)
    train, valid = walks(120, 0), walks(40, 1)
    for i in range(6):
        valid[2 * i] = change(train[5 * i], rng).astype(np.float32)
    finding = found(clips(tmp_path, train, valid=valid))[CODE]
    assert finding.level == "warning"
    assert "6 of 40 validation clips are near copies or parts of training clips" in finding.evidence
    assert "lines 2 (train.tsv:2" in finding.evidence and "4 (train.tsv:7" in finding.evidence


def test_a_wider_cut_of_a_training_clip_is_told(tmp_path: Path) -> None:
    train, valid = walks(120, 0), walks(40, 1)
    for i in range(6):
        train[i] = valid[i][5:-5]
    assert "6 of 40" in found(clips(tmp_path, train, valid=valid))[CODE].evidence


@pytest.mark.parametrize("dims", [1, 12, 300])
def test_other_clips_are_silent(tmp_path: Path, dims: int) -> None:
    assert levels(clips(tmp_path, walks(120, 0, dims), valid=walks(40, 1, dims))) == {}


def test_clips_of_one_frame(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    train, valid = ([rng.normal(size=(1, 16)).astype(np.float32) for _ in range(size)] for size in (120, 40))
    assert levels(clips(tmp_path, train, valid=valid)) == {}
    for i in range(6):
        valid[i] = train[9 * i] + 0.05 * rng.normal(size=(1, 16)).astype(np.float32)
    (tmp_path / "leaking").mkdir()
    assert "6 of 40" in found(clips(tmp_path / "leaking", train, valid=valid))[CODE].evidence


def test_silence_is_no_copy(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)

    def quiet(size: int, seed: int) -> list[np.ndarray]:
        made = walks(size, seed)
        for matrix in made[::4]:
            matrix[:] = 0.01 * rng.normal(size=matrix.shape)
        return made

    assert levels(clips(tmp_path, quiet(120, 0), valid=quiet(40, 1))) == {}


def words_of(size: int, seed: int) -> list[np.ndarray]:
    """Clips made of ten pieces that all of them share, as a closed vocabulary is."""
    pieces, rng = walks(10, 77, frames=(8, 9)), np.random.default_rng(seed)
    return [
        np.concatenate([pieces[i] + 0.1 * rng.normal(size=pieces[i].shape) for i in rng.integers(0, 10, 4)])
        for _ in range(size)
    ]


def test_clips_of_a_closed_vocabulary_are_alike_by_nature(tmp_path: Path) -> None:
    assert levels(clips(tmp_path, words_of(300, 0), valid=words_of(60, 1)), CODE) == {}
