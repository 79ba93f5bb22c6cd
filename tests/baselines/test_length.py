"""Random targets of the right length."""

from __future__ import annotations

from sourcewise.baselines.length import of_equal_length
from sourcewise.metrics.texts import words
from tests.baselines.sets import sentences

TARGETS = [" ".join(each) for each in sentences(300)]


def test_each_is_a_target_as_long_as_its_reference() -> None:
    references = [" ".join(each) for each in sentences(100, seed=1)]
    found = of_equal_length(references, TARGETS, own=False)
    assert [len(words(text)) for text in found] == [len(words(text)) for text in references]
    assert set(found) <= set(TARGETS) and len(set(found)) > 60
    assert (
        found
        == of_equal_length(references, TARGETS, own=False)
        != of_equal_length(references, TARGETS, own=False, seed=1)
    )


def test_a_length_that_is_not_there_gets_the_nearest() -> None:
    assert of_equal_length(["x " * 40, "y"], ["a b", "c d e f g"], own=False) == ["c d e f g", "a b"]


def test_characters_count_where_no_spaces_are() -> None:
    assert of_equal_length(["今天下雨"], ["明天晴朗", "一", "风很大今天"], own=False) == ["明天晴朗"]


def test_none_is_given_for_itself() -> None:
    texts = [f"{i} {'x ' * (i % 3)}" for i in range(60)]  # all different
    found = of_equal_length(texts, texts, own=True)
    assert all(given != own for given, own in zip(found, texts, strict=True))
    assert [len(words(t)) for t in found] == [len(words(t)) for t in texts]
    assert of_equal_length(["a", "b b b"], ["a", "b b b"], own=True) == ["b b b", "a"]
    assert of_equal_length(["same", "same"], ["same", "same"], own=True) == ["same", "same"]
