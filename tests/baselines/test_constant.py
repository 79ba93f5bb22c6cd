"""The best constant is the best there is, by the set's own metric."""

from __future__ import annotations

import pytest

from sourcewise.baselines.constant import best_constants
from sourcewise.metrics.counting import as_references
from sourcewise.metrics.measure import Measure
from tests.baselines.sets import sentences


@pytest.mark.parametrize("metric", ["bleu", "chrf", "wer", "rouge_l"])
def test_no_other_target_does_better_for_all(metric: str) -> None:
    targets = [" ".join(each) for each in sentences(120)]
    measure = Measure(metric)
    held = measure.of(as_references(targets))
    every = {text: measure.sign * held.score([text] * len(targets)) for text in dict.fromkeys(targets)}
    best = max(every.values())
    found = best_constants(targets, measure)
    assert every[found[0]] >= best - 0.02 * abs(best)  # candidates are found by counts, without brevity of each text
    assert every[found[0]] >= every[found[1]] and found[0] != found[1]


def test_of_labels_it_is_the_commonest() -> None:
    assert best_constants(["ham"] * 7 + ["spam"] * 9 + ["eggs"], Measure("exact_match_pct")) == ["spam", "ham"]


def test_of_many_texts_the_commonest_are_counted_over_all() -> None:
    targets = [f"text number {i}" for i in range(20_000)] + ["the one that comes three times"] * 3
    assert best_constants(targets, Measure("exact_match_pct"))[0] == "the one that comes three times"


@pytest.mark.parametrize("targets", [["a"], ["a", "a", "a"], ["", ""], [""]])
def test_of_one_text_it_is_that_one(targets: list[str]) -> None:
    assert best_constants(targets, Measure("bleu")) == [targets[0]]


def test_empty_texts_among_others_do_no_harm() -> None:
    assert best_constants(["", "", "one two three four five"] * 4 + ["x"], Measure("bleu"))[:1] == [
        "one two three four five"
    ]
