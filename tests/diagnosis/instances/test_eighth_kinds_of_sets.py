"""Kinds of which people tell, the eighth time, in tables: values as a program writes them, special tokens as text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sourcewise.data.readers.doubtful import doubts
from tests.diagnosis.instances.test_seventh_kinds_of_sets import at
from tests.diagnosis.test_data_rules import found, recipe, translations

Change = Callable[[str], str]


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: repr(text.encode()), "value.decode()"),
        (lambda text: repr([text]), "value[0]"),
        (lambda text: f"<s> {text} </s>", "special tokens"),
        (lambda text: f"[CLS] {text} [SEP]", "special tokens"),
        (lambda text: f"{text}\\n", "ends of lines"),
    ],
)
def test_texts_as_another_program_writes_them(tmp_path: Path, change: Change, said: str, side: int) -> None:
    pairs = [tuple(change(text) if i == side else text for i, text in enumerate(pair)) for pair in translations(400)]
    finding = found(recipe(tmp_path, pairs))["DAT031"]
    assert finding.level == "warning" and said in finding.evidence
    assert ("sources" if side == 0 else "targets") in finding.evidence


@pytest.mark.parametrize(
    "change",
    [
        lambda row, text: repr(text.split()) if row % 2 else repr([text]),  # lists that are asked for
        lambda row, text: f"{text} (\\nu and \\tau)",
        lambda row, text: f"{text} [SEP] {text}" if row % 2 else f"{text}</s>{text}",  # fields of one text
        lambda row, text: f"[laughs] '{text}'" if row % 3 else f"it's <b>{text}</b>",
    ],
)
def test_texts_that_are_meant_so(tmp_path: Path, change: Callable[[int, str], str]) -> None:
    pairs = [(a, change(row, b)) for row, (a, b) in enumerate(translations(400))]
    assert "DAT031" not in found(recipe(at(tmp_path / "meant"), pairs))


def test_each_kind_is_told_once() -> None:
    texts = ["b'a'", "<pad> b", "c\\n", "d", "['e']"]
    assert [place for place, _ in doubts(texts, "lines")] == [0, 1, 2]  # a single list may be meant
    assert [what.split(",")[0] for _, what in doubts(["['a']"] * 20, "lines")] == [
        "20 lines are lists of one text as Python writes them (['…'])"
    ]
