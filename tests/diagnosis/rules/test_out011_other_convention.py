"""OUT011: references of another convention."""

from __future__ import annotations

import pytest

from tests.diagnosis.rules.scored import SENTENCES, WORSE, found

CODE = "OUT011"


def raw(texts: list[str]) -> list[str]:
    """With a comma and a full stop, as people write."""
    return [", ".join((" ".join(t.split()[:3]), " ".join(t.split()[3:]))) + "." for t in texts]


def tokenised(texts: list[str]) -> list[str]:
    return [text.replace(",", " ,").replace(".", " .") for text in raw(texts)]


def capital(texts: list[str]) -> list[str]:
    return [" ".join(word.capitalize() if i % 4 == 0 else word for i, word in enumerate(t.split())) for t in texts]


def test_tokenised_references_beside_raw_outputs() -> None:
    finding = found(tokenised(SENTENCES), raw(WORSE))[CODE]
    assert finding.level == "warning" and "the references are tokenised" in finding.evidence
    finding = found(raw(SENTENCES), tokenised(WORSE))[CODE]
    assert finding.level == "warning" and "the outputs are tokenised" in finding.evidence


def test_both_tokenised_is_a_note() -> None:
    finding = found(tokenised(SENTENCES), tokenised(WORSE))[CODE]
    assert finding.level == "note" and "references and outputs are tokenised" in finding.evidence
    moses = [text.replace("a", "&apos;", 1) for text in SENTENCES]
    assert found(moses, moses)[CODE].level == "note"


def test_small_letters_beside_capitals() -> None:
    finding = found(SENTENCES, capital(SENTENCES))[CODE]
    assert (
        finding.level == "warning" and "the references have no capitals, 100 % of the outputs have" in finding.evidence
    )
    assert "in small letters 100.00" in finding.evidence
    assert "the outputs have no capitals" in found(capital(SENTENCES), SENTENCES)[CODE].evidence


@pytest.mark.parametrize("signature", ["tok:none", "tok:zh", "tok:char"])
def test_a_tokenizer_that_does_not_mind_is_silent(signature: str) -> None:
    assert CODE not in found(tokenised(SENTENCES), tokenised(WORSE), bleu_signature=f"nrefs:1|case:mixed|{signature}")


def test_case_that_is_not_counted_is_silent() -> None:
    assert CODE not in found(SENTENCES, capital(SENTENCES), bleu_signature="nrefs:1|case:lc|tok:13a")


@pytest.mark.parametrize(
    ("references", "given"),
    [
        (SENTENCES, WORSE),
        (raw(SENTENCES), raw(WORSE)),
        (capital(raw(SENTENCES)), capital(raw(WORSE))),
        ([f"{t} ?" for t in SENTENCES], [f"{t} ?" for t in WORSE]),  # as French is written
        (["a , b"] * 40, ["a , b"] * 40),  # no sentences
        (["one . five"] * 40, ["one . five"] * 40),
    ],
)
def test_texts_of_one_convention_are_silent(references: list[str], given: list[str]) -> None:
    assert CODE not in found(references, given)
