"""Texts that something spoilt before they were read: other encodings, columns that cut, answers in questions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import sourcewise
from tests.diagnosis.test_data_rules import Pair, found, recipe, sourcewise_recipe, translations

ACCENTS = str.maketrans({"a": "ä", "o": "ö", "u": "ü", "e": "é"})


def spoilt(share: float, side: int, how: str) -> list[Pair]:
    """Pairs with accents, a share of whose sources (0) or targets (1) are damaged."""
    draw, out = np.random.default_rng(3), []
    for pair in translations():
        texts = [text.translate(ACCENTS) for text in pair]
        if draw.random() < share:
            texts[side] = texts[side].encode().decode(how, errors="replace")
        out.append((texts[0], texts[1]))
    return out


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    ("share", "how", "level"), [(0.5, "cp1252", "error"), (0.03, "cp1252", "warning"), (0.3, "ascii", "error")]
)
def test_damaged_texts(tmp_path: Path, share: float, side: int, how: str, level: str) -> None:
    valid = [(a.translate(ACCENTS), b.translate(ACCENTS)) for a, b in translations(60, 1)]
    finding = found(recipe(tmp_path, spoilt(share, side, how), valid))["DAT031"]
    assert finding.level == level
    assert ("sources" if side == 0 else "targets") in finding.evidence


@pytest.mark.parametrize(("share", "note"), [(0.03, False), (0.002, True)])
def test_a_training_tells_of_damage_once(
    tmp_path: Path, share: float, note: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the rule, or by a note where there is too little of it for the rule; notes.tsv has it in both cases."""
    valid = [(a.translate(ACCENTS), b.translate(ACCENTS)) for a, b in translations(60, 1)]
    planned = recipe(tmp_path, spoilt(share, 1, "cp1252"), valid)
    run = sourcewise.train(sourcewise_recipe(planned), {"train.steps": 1, "output": str(tmp_path / "runs")})
    err = capsys.readouterr().err
    assert ("cells of 'target' are UTF-8 that was read as another encoding" in err) == note
    assert ("% of the targets" in err) != note
    assert ("DAT031" in run.log.read_text()) != note
    assert "UTF-8 that was read as another encoding" in run.notes.read_text()


def test_accents_are_no_damage(tmp_path: Path) -> None:
    valid = [(a.translate(ACCENTS), b.translate(ACCENTS)) for a, b in translations(60, 1)]
    assert "DAT031" not in found(recipe(tmp_path, spoilt(0, 0, "cp1252"), valid))


NUMBERS = ("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf")


def numbers(size: int, seed: int) -> list[Pair]:
    """Numbers as words and as digits, the later in another order."""
    draw = np.random.default_rng(seed)
    rows = [draw.integers(0, len(NUMBERS), draw.integers(4, 10)) for _ in range(size)]
    return [(" ".join(NUMBERS[i] for i in row), " ".join(f"{i}." for i in row)) for row in rows]


@pytest.mark.parametrize(("kept", "side"), [(32, 0), (40, 0), (18, 1)])
def test_texts_that_a_column_cut(tmp_path: Path, kept: int, side: int) -> None:
    def cut(pairs: list[Pair]) -> list[Pair]:
        return [(a[:kept], b) if side == 0 else (a, b[:kept]) for a, b in pairs]

    finding = found(recipe(tmp_path, cut(numbers(800, 0)), cut(numbers(80, 1))))["DAT007"]
    assert finding.level == "warning"
    assert f"have exactly {kept} characters" in finding.evidence


def test_texts_of_like_lengths_were_not_cut(tmp_path: Path) -> None:
    alike = [(" ".join(a.split()[:4]), " ".join(b.split()[:4])) for a, b in translations()]
    assert "DAT007" not in found(recipe(tmp_path, alike))
    assert "DAT007" not in found(recipe(tmp_path, numbers(800, 0), numbers(80, 1)))
    draw = np.random.default_rng(0)
    digits = [("".join(map(str, draw.integers(0, 10, size=6))), "ja nein"[draw.integers(0, 5) :]) for _ in range(400)]
    assert "DAT007" not in found(recipe(tmp_path, digits))


@pytest.mark.parametrize("between", [" ", " antwort: ", " = "])
def test_answers_that_stand_in_the_question(tmp_path: Path, between: str) -> None:
    def told(pairs: list[Pair]) -> list[Pair]:
        return [(f"{a}{between}{b}", b) for a, b in pairs]

    finding = found(recipe(tmp_path, told(translations()), told(translations(60, 1))))["DAT016"]
    assert finding.level == "warning" and "the answer stands in the question" in finding.evidence


def test_some_sources_that_end_with_their_target(tmp_path: Path) -> None:
    some = [(f"{a} {b}" if i % 3 == 0 else a, b) for i, (a, b) in enumerate(translations())]
    assert "in the question" not in found(recipe(tmp_path, some))["DAT016"].evidence  # but copies in training alone
