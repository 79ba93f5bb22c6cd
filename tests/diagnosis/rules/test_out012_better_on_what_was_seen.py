"""OUT012: better on target texts seen in training."""

from __future__ import annotations

from typing import Any

import pytest

from sourcewise.evaluation.by_group import seen_figures
from tests.diagnosis.rules.scored import SENTENCES, WORSE, evaluation, found

CODE = "OUT012"


def scored(seen: int, references: list[str], given: list[str]) -> dict[str, Any]:
    return seen_figures(evaluation(references, given).rows, set(references[:seen]))


@pytest.mark.parametrize(("seen", "level"), [(100, "warning"), (12, "note")])
def test_the_score_on_seen_texts_is_told_beside_that_on_the_others(seen: int, level: str) -> None:
    given = [*SENTENCES[:seen], *WORSE[seen:]]
    finding = found(SENTENCES, given, **scored(seen, SENTENCES, given))[CODE]
    assert finding.level == level
    assert f"{seen} of 200 references are target texts of the training set: BLEU 100.0 there, BLEU" in finding.evidence


def test_single_words_are_judged_by_exact_match() -> None:
    words = [str(i) for i in range(100)]
    given = [*words[:50], *["0"] * 50]
    finding = found(words, given, **scored(50, words, given))[CODE]
    assert "exactly right 100.0 % there, exactly right 0.0 % on the others" in finding.evidence


@pytest.mark.parametrize("seen", [0, 3, 100])
def test_as_good_on_both_parts_is_silent(seen: int) -> None:
    assert CODE not in found(SENTENCES, SENTENCES, **scored(seen, SENTENCES, SENTENCES))
    assert CODE not in found(SENTENCES, WORSE)
