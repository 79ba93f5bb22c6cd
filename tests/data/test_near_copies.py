"""Near copies of texts: found whatever the script, not found among other texts, fast."""

from __future__ import annotations

import time

import numpy as np
import pytest

from sourcewise.data.near_copies import Fingerprints, clusters, jaccard, near_copies, simplified

LETTERS = np.random.default_rng(1).integers(97, 123, (2000, 6))
WORDS = ["".join(map(chr, row)) for row in LETTERS]


def sentences(count: int, seed: int = 0, words: int = 12) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(WORDS[i] for i in rng.integers(0, len(WORDS), words)) for _ in range(count)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A man rides a brown horse along the beach.", "a man rides a brown horse along the BEACH"),
        ("A man rides a brown horse along the beach.", "A man rides a black horse along the beach."),
        ("今天天气很好我们去公园散步吧然后回家吃饭", "今天天气很好我们去公园散步吧然后回家睡觉"),
        ("Сегодня хорошая погода, идём гулять в парк", "Сегодня хорошая погода, идём играть в парк"),
        ("x", "X!"),
        ("?!", "?!"),
    ],
)
def test_a_near_copy_is_found_among_others(one: str, other: str) -> None:
    known = Fingerprints([*sentences(50), other, *sentences(50, 1)])
    (copy,) = near_copies(Fingerprints([one]), known)
    assert (copy.place, copy.other) == (0, 50) and copy.likeness >= 0.6


def test_other_texts_and_empty_ones_are_none() -> None:
    assert near_copies(Fingerprints(["", *sentences(100, 3)]), Fingerprints(["", *sentences(500)])) == []


def test_a_text_is_not_its_own_copy_and_equal_labels_are_preferred() -> None:
    texts = sentences(40)
    known = Fingerprints([*texts, texts[3] + " x", texts[3]])
    (copy,) = near_copies(Fingerprints([texts[3]]), known, own=[3])
    assert copy.other == 41
    (copy,) = near_copies(Fingerprints([texts[3]]), known, own=[3], labels=(["a"], ["b"] * 40 + ["a", "b"]))
    assert copy.other == 40


def test_all_near_copies_are_found() -> None:
    rng = np.random.default_rng(5)
    texts = sentences(2000, 6)
    changed = []
    for text in texts[:300]:
        words = text.split()
        words[rng.integers(len(words))] = "changed"
        changed.append(" ".join(words))
    found = near_copies(Fingerprints(changed), Fingerprints(texts))
    near = [i for i, text in enumerate(changed) if jaccard(simplified(text), simplified(texts[i])) >= 0.6]
    assert len(near) > 250
    assert sum(copy.other == copy.place for copy in found) >= 0.97 * len(near)


def test_clusters_hold_copies_of_copies() -> None:
    text = "one two three four five six seven eight nine ten eleven twelve"
    chain = [text, text.replace("two", "deux"), text.replace("two", "deux").replace("ten", "dix"), "another text"]
    numbers = clusters([*chain, "", "", *sentences(30), text.upper()])
    assert numbers[0] == numbers[1] == numbers[2] == numbers[-1]
    assert len({numbers[0], *numbers[3:-1]}) == 1 + 3 + 30


def test_a_hundred_thousand_texts_take_seconds() -> None:
    texts = sentences(100_000, 7, words=8)
    began = time.process_time()
    near_copies(Fingerprints(texts[:2000]), Fingerprints(texts), own=range(2000))
    assert time.process_time() - began < 20
