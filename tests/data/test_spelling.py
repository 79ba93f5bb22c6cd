from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sourcewise.config import DatasetConfig
from sourcewise.data.examples import Example
from sourcewise.data.open import open_dataset, open_sources
from sourcewise.data.spelling import NOTHING, Spelling

KOREAN = "가 감"


@given(st.text())
def test_nothing_changes_nothing(text: str) -> None:
    assert (NOTHING.source(text), NOTHING.target(text)) == (text, text)


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_the_form_is_that_of_sources_alone(write_text, form: str) -> None:
    path = write_text("x.tsv", f"source\ttarget\n{KOREAN}\tﬁn ç\n")
    (example,) = open_dataset(DatasetConfig(pairs=str(path), source_form=form, prefix="é "))
    assert example.source == "é " + unicodedata.normalize(form, KOREAN)  # a prefix stays as the recipe has it
    assert example.target == "ﬁn ç"


def test_sources_for_generation_are_spelled_the_same_way() -> None:
    (example,) = open_sources([KOREAN.upper()], spelling=Spelling("<kor> ", lowercase=True, form="NFD"))
    assert example.source == "<kor> " + unicodedata.normalize("NFD", KOREAN) and len(example.source) == 12


def test_turns_and_further_references() -> None:
    example = Example("1", "Ja", "É B", turns=("É ", "B"), others=("JA",))
    found = Spelling("p ", lowercase=True, form="NFD").example(example)
    assert found.turns == ("p e\u0301 ", "b") and found.source == "p e\u0301 b" and found.references == ("ja", "ja")


@given(st.text())
def test_letters_of_sources_stand_apart(text: str) -> None:
    found = Spelling(letters=True).source(text)
    assert found.split(" ") == list("".join(text.split())) or not found
    assert Spelling(letters=True).source(found) == found


def test_a_syllable_is_its_letters_behind_a_prefix(write_text) -> None:
    path = write_text("x.tsv", f"source\ttarget\n{KOREAN}\tk a ɡ a m\nNew York\tn j u j\n")
    config = DatasetConfig(pairs=str(path), source_form="NFD", source_letters=True, prefix="<kor> ")
    korean, words = open_dataset(config)
    assert korean.source == "<kor> " + " ".join(unicodedata.normalize("NFD", "가감"))
    assert len(korean.source.split()) == 6 and korean.target == "k a ɡ a m"
    assert words.source == "<kor> N e w Y o r k"
