"""The nearest training source is found, among texts and among features of several kinds."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from sourcewise.baselines.copying import copied
from sourcewise.baselines.frames import blocks_of
from sourcewise.baselines.vectors import WEIGHTIEST, nearest, ngrams, tf_idf, unit
from sourcewise.metrics.measure import Measure
from tests.baselines.sets import WORDS, clips, sentences, texts, translations


def test_ngrams_are_counted_and_do_not_cross_documents() -> None:
    documents = [np.array(d, dtype=np.uint64) for d in ([1, 2, 1, 2], [], [3], [2, 1])]
    counts = ngrams(documents, (1, 2))
    expected = [[2, 2, 2, 1], [], [1], [1, 1, 1]]  # 1, 2, (1 2), (2 1) · nothing · 3 · 2, 1, (2 1)
    rows = [sorted(counts[np.array([i])].values, reverse=True) for i in range(4)]
    assert rows == [sorted(map(float, row), reverse=True) for row in expected]
    first, last = (set(counts[np.array([i])].columns) for i in (0, 3))
    assert len(first & last) == 3
    assert not first & set(ngrams(documents, (1, 2), salt=1)[np.array([0])].columns)


def test_the_nearest_is_that_of_all_products() -> None:
    rng = np.random.default_rng(0)
    keys, queries = unit(rng.standard_normal((150, 6))), unit(rng.standard_normal((70, 6)))
    places, cosines = nearest(queries, keys)
    assert (places == (queries @ keys.T).argmax(1)).all() and np.allclose(cosines, (queries @ keys.T).max(1))
    places, _ = nearest(keys, keys, np.arange(150))
    assert (places != np.arange(150)).all()


def test_long_texts_are_held_by_their_rarest_ngrams() -> None:
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, 3000, 200).astype(np.uint64) for _ in range(80)]
    queries = [np.concatenate([d[:150], rng.integers(0, 3000, 50).astype(np.uint64)]) for d in documents]
    keys, asked = tf_idf(ngrams(documents, (1,)), ngrams(queries, (1,)))
    assert asked.sizes.max() > WEIGHTIEST
    assert (nearest(asked, keys)[0] == np.arange(80)).all()


def test_what_all_keys_have_weighs_nothing() -> None:
    keys, queries = tf_idf(*(ngrams([np.array([1, 2], dtype=np.uint64)] * n, (1, 2)) for n in (5, 2)))
    assert not keys.values.any() and not nearest(queries, keys)[1].any()


@pytest.mark.parametrize("change", [str, str.upper, lambda text: text + " !", lambda text: "so: " + text])
def test_the_target_of_a_source_that_is_nearly_the_same_is_copied(change) -> None:
    train = translations(400)
    chosen = range(0, 400, 9)
    found = copied(texts([(change(train[i][0]), "") for i in chosen]), texts(train), Measure("bleu"), own=False)
    right = Counter(given == train[i][1] for given, i in zip(found.targets, chosen, strict=True))
    assert right[True] >= 0.8 * len(chosen) and all(found.found)


def test_words_that_are_inflected_are_found_by_their_characters() -> None:
    rng = np.random.default_rng(0)
    stems = ["".join(rng.choice(list("abcdefghijklmno"), 7)) for _ in range(200)]
    train = [(f"{stem}en{rng.integers(1000)}", f"label {stem[:3]}") for stem in stems]
    found = copied(
        texts([(f"{stem}te{rng.integers(1000)}", "") for stem in stems]),
        texts(train),
        Measure("exact_match_pct"),
        own=False,
    )
    assert found.targets == [target for _, target in train]


def test_sources_that_are_all_the_same_find_nothing() -> None:
    found = copied(
        texts([("a b c", "x")] * 5), texts([("a b c", str(i)) for i in range(20)]), Measure("bleu"), own=False
    )
    assert not any(found.found)


def test_scripts_without_spaces_and_odd_characters() -> None:
    train = [("今天天气很好", "good"), ("明天会下大雨", "rain"), ("\udcff broken", "odd"), ("𝒳𝒴", "math"), ("", "none")]
    asked = [("天气很好", ""), ("会下大雨吗", ""), ("𝒳𝒴 z", "")]
    assert copied(texts(asked), texts(train), Measure("exact_match_pct"), own=False).targets == ["good", "rain", "math"]


def test_no_example_of_its_own_set_copies_itself() -> None:
    pairs = [("a b c", "one"), ("a b c", "two"), ("d e f", "three"), ("d e g", "four")]
    found = copied(texts(pairs), texts(pairs), Measure("exact_match_pct"), own=True)
    assert found.targets == ["two", "one", "four", "three"]
    assert copied(texts(pairs[:2]), texts(pairs[:2]), Measure("bleu"), own=True).targets == ["two", "one"]


# ── features ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def signed(
    said: list[list[str]], seed: int = 0, noise: float = 0.0, dtype: str = "float32", order: bool = False
) -> list[np.ndarray]:
    """What a recogniser saw of signed sentences: a fixed vector per class, of signs and of mouths, for some frames."""
    fixed = np.random.default_rng(99)
    signs, mouths = fixed.standard_normal((len(WORDS), 24)), fixed.standard_normal((12, 8))
    mixed = fixed.permutation(32) if order else np.arange(32)
    rng = np.random.default_rng(seed)
    found = []
    for sentence in said:
        frames = []
        for word in sentence:
            number = WORDS.index(word)
            for _ in range(rng.integers(2, 6)):
                frames.append(np.concatenate([signs[number], mouths[(number + rng.integers(3)) % 12]]))
        matrix = np.array(frames) + noise * rng.standard_normal((len(frames), 32))
        found.append(matrix[:, mixed].astype(dtype).astype(np.float32))
    return found


def near(said: list[list[str]], seed: int = 5) -> list[list[str]]:
    """The same sentences with one word exchanged."""
    rng = np.random.default_rng(seed)
    found = [list(sentence) for sentence in said]
    for sentence in found:
        sentence[rng.integers(len(sentence))] = str(rng.choice(WORDS))
    return found


@pytest.mark.parametrize(
    "kind", [{}, {"dtype": "float16"}, {"order": True}, {"noise": 0.2}, {"noise": 0.2, "order": True}], ids=str
)
def test_clips_of_nearly_the_same_sentence_are_found(kind: dict) -> None:
    said = sentences(300)
    targets = [" ".join(sentence) for sentence in said]
    asked = list(range(0, 300, 7))
    dataset = clips(signed(near([said[i] for i in asked]), 1, **kind), [targets[i] for i in asked])
    found = copied(dataset, clips(signed(said, **kind), targets), Measure("bleu"), own=False)
    right = sum(given == targets[i] for given, i in zip(found.targets, asked, strict=True))
    assert right >= 0.5 * len(asked), (right, len(asked), found.way)


def test_columns_that_change_together_are_one_block() -> None:
    said = sentences(200)
    sample = np.concatenate(signed(said))
    assert [block.tolist() for block in blocks_of(sample)] == [list(range(24)), list(range(24, 32))]
    mixed = blocks_of(np.concatenate(signed(said, order=True)))
    assert sorted(map(len, mixed)) == [8, 24]
    assert blocks_of(np.concatenate(signed(said, noise=0.1))) == []
    binary = (np.random.default_rng(0).random((2000, 30)) > 0.5).astype(np.float32)
    assert blocks_of(binary) == []  # frames hardly ever repeat
    names = np.eye(20, dtype=np.float32)[np.random.default_rng(0).integers(0, 20, 2000)]
    assert [block.tolist() for block in blocks_of(names)] == [list(range(20))]  # one-hot: the whole frame names a class
    constant = np.concatenate([sample, np.ones((len(sample), 3), np.float32)], axis=1)
    assert [len(block) for block in blocks_of(constant)] == [24, 8]


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_one_vector_per_source(frames: int) -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((40, 300))
    matrices = [np.repeat(c[None], frames, 0) for c in centres]
    asked = [m + 0.3 * rng.standard_normal(m.shape) for m in matrices]
    targets = [f"text {i}" for i in range(40)]
    assert (
        copied(clips(asked, targets), clips(matrices, targets), Measure("exact_match_pct"), own=False).targets
        == targets
    )


def test_frames_that_never_change_and_a_single_clip() -> None:
    still = [np.zeros((n, 5), dtype=np.float32) for n in (3, 4, 5)]
    found = copied(clips(still[:2], ["a", "b"]), clips(still, ["x", "y", "z"]), Measure("bleu"), own=False)
    assert len(found.targets) == 2
    assert (
        copied(clips(still, ["a", "b", "c"]), clips(still[:1], ["x"]), Measure("bleu"), own=False).targets == ["x"] * 3
    )
