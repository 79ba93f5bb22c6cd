"""OUT010: outputs and references share an appended mark."""

from __future__ import annotations

import pytest

from tests.diagnosis.rules.scored import SENTENCES, WORSE, found

CODE = "OUT010"


@pytest.mark.parametrize("mark", [".", "<eos>", "。", "|||", "[SEP]", "__end__"])
def test_a_mark_behind_all_is_told_with_what_it_is_worth(mark: str) -> None:
    finding = found([f"{t} {mark}" for t in SENTENCES], [f"{t} {mark}" for t in WORSE])[CODE]
    assert finding.level == "note"
    assert f'200 of 200 references and 200 of the outputs end in "{mark}": BLEU ' in finding.evidence
    with_it, without = (float(part.split()[0]) for part in finding.evidence.split("BLEU ")[1].split(" with it, "))
    assert with_it > without > 0


@pytest.mark.parametrize(
    ("references", "given"),
    [
        (SENTENCES, WORSE),
        ([f"{t}." for t in SENTENCES], [f"{t}." for t in WORSE]),  # as raw text is written
        ([f"{t} ." for t in SENTENCES], WORSE),  # the outputs have none
        ([f"{t} dog" for t in SENTENCES], [f"{t} dog" for t in WORSE]),  # a word
        (["yes ."] * 50, ["yes ."] * 50),  # no sentences
        ([f"{t} {'.' if i % 3 else '?'}" for i, t in enumerate(SENTENCES)], WORSE),
    ],
)
def test_other_texts_are_silent(references: list[str], given: list[str]) -> None:
    assert CODE not in found(references, given)
