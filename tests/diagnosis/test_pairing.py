"""DAT003: exercises and other sets that belong together pass, shuffled ones are found, or said not to be told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest

from sourcewise.data.examples import Example
from sourcewise.diagnosis.measures.alignment import CHANCE, Pairing, pairing, relation
from sourcewise.diagnosis.measures.dependence import Kernel, goes_with
from sourcewise.diagnosis.measures.sides import Features, Texts, in_thirds
from tests.diagnosis.test_data_rules import translations

Pair = tuple[str, str]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
Tokens = Callable[[Sequence[str]], list[list[int]]]


def by_bytes(texts: Sequence[str]) -> list[list[int]]:
    return [[byte + 3 for byte in text.encode()] + [1] for text in texts]


def by_words(texts: Sequence[str]) -> list[list[int]]:
    known: dict[str, int] = {}
    return [[known.setdefault(word, len(known) + 4) for word in text.split()] + [1] for text in texts]


def by_threes(texts: Sequence[str]) -> list[list[int]]:
    """Pieces of three characters, as of a tokenizer that merged what is common."""
    known: dict[str, int] = {}
    return [[known.setdefault(t[i : i + 3], len(known)) for i in range(0, len(t), 3)] for t in texts]


def judged(pairs: Sequence[Pair], tokens: Tokens = by_bytes) -> Pairing:
    examples = [Example(str(i), t, s, where=f"line {i + 1}") for i, (s, t) in enumerate(pairs)]
    ids = tokens([text for pair in pairs for text in pair])

    def side(places: np.ndarray, which: int) -> Texts:
        return Texts([pairs[i][which] for i in places], [ids[2 * i + which] for i in places])

    return pairing(examples, lambda left, right: (side(left, 0), side(right, 1)))


def shuffled(pairs: Sequence[Pair], seed: int = 0) -> list[Pair]:
    order = np.random.default_rng([5, seed]).permutation(len(pairs))
    return [(source, pairs[i][1]) for (source, _), i in zip(pairs, order, strict=True)]


def strings(size: int, letters: int, low: int, high: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng([6, seed, letters, low])
    lengths = rng.integers(low, high + 1, size)
    return ["".join(LETTERS[i] for i in rng.integers(0, letters, length)) for length in lengths]


def shifted(text: str, by: int, letters: int) -> str:
    return "".join(LETTERS[(LETTERS.index(letter) + by) % letters] for letter in text)


def runs(text: str) -> str:
    out: list[list[str]] = []
    for letter in text:
        out[-1].append(letter) if out and out[-1][0] == letter else out.append([letter])
    return "".join(f"{run[0]}{len(run)}" for run in out)


def neighbours(text: str, letters: int) -> str:
    """Each letter is the sum of the two beside it: no letter of the source tells anything by itself."""
    places = [LETTERS.index(letter) for letter in text]
    return "".join(LETTERS[(places[i - 1] + places[(i + 1) % len(text)]) % letters] for i in range(len(text)))


def substituted(text: str, letters: int) -> str:
    table = np.random.default_rng(letters).permutation(letters)
    return "".join(LETTERS[table[LETTERS.index(letter)]] for letter in text)


TASKS: dict[str, Callable[[str, int], str]] = {
    "reverse": lambda text, _: text[::-1],
    "copy": lambda text, _: text,
    "sort": lambda text, _: "".join(sorted(text)),
    "caesar": lambda text, k: shifted(text, 2, k),
    "substitute": substituted,
    "repeat": lambda text, _: text * 2,
    "interleave": lambda text, _: "".join(a + b for a, b in zip(text[::2], text[1::2], strict=False)),
    "runs": lambda text, _: runs(text),
    "key": lambda text, k: shifted(text, sum(map(ord, text)) % k, k),
    "neighbours": neighbours,
}
SHAPES = {"fixed": (5, 8, 8), "free": (10, 4, 14), "three": (3, 8, 8), "two": (2, 14, 14), "all": (26, 5, 12)}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("task", TASKS)
def test_an_exercise_passes_and_is_found_when_shuffled(task: str, shape: str) -> None:
    letters, low, high = SHAPES[shape]
    pairs = [(text, TASKS[task](text, letters)) for text in strings(300, letters, low, high)]
    tokens = (by_bytes, by_threes)[len(task) % 2]
    assert judged(pairs, tokens).state == "in step"
    if task == "sort" and letters < 4:  # few different targets: labels
        assert judged(shuffled(pairs), tokens).state == "not told"
    else:
        assert judged(shuffled(pairs), tokens).state == "out of step"


@pytest.mark.parametrize("task", ["reverse", "sort", "caesar"])
@pytest.mark.parametrize("tokens", [by_bytes, by_words])
def test_blanks_between_letters(task: str, tokens: Tokens) -> None:
    pairs = [(" ".join(text), " ".join(TASKS[task](text, 7))) for text in strings(250, 7, 9, 9)]
    assert judged(pairs, tokens).state == "in step"
    assert judged(shuffled(pairs), tokens).state == "out of step"


@pytest.mark.parametrize("size", [20, 50, 150])
def test_few_examples_are_not_told(size: int) -> None:
    pairs = [(text, text[::-1]) for text in strings(size, 5, 8, 8)]
    for each in (pairs, shuffled(pairs)):
        assert judged(each) == Pairing("not told", f"{size} examples, at least 200 are needed")


@pytest.mark.parametrize("digits", [2, 3, 6])
@pytest.mark.parametrize("sign", ["+", "-", "*"])
def test_sums(sign: str, digits: int) -> None:
    rng = np.random.default_rng(digits)
    drawn = [[int(rng.integers(10**digits)), int(rng.integers(10**digits))] for _ in range(600)]
    work = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}[sign]
    pairs = [(f"{a} {sign} {b}", str(work(a, b))) for a, b in drawn]
    assert judged(pairs).state == "in step"
    found = judged(shuffled(pairs)).state
    assert found in (("out of step", "perhaps") if digits > 2 else ("out of step", "perhaps", "not told"))


@pytest.mark.parametrize("modulus", [97, 113, 997])
def test_arithmetic_that_hides_is_no_error(modulus: int) -> None:
    rng = np.random.default_rng(modulus)
    for work in (lambda a, b: a + b, lambda a, b: a * b):
        drawn = rng.integers(0, modulus, (400, 2)).tolist()
        pairs = [(f"{a} {b}", str(work(a, b) % modulus)) for a, b in drawn]
        assert judged(pairs).state != "out of step"


LABELS: dict[str, Callable[[str], str]] = {
    "parity": lambda text: "odd" if text.count("a") % 2 else "even",
    "most": lambda text: max("abc", key=text.count),
    "checksum": lambda text: str(sum(i * ord(c) for i, c in enumerate(text, 1)) % 7),
    "rare": lambda text: "yes" if text.startswith("abc") else "no",
    "constant": lambda text: "same",
}


@pytest.mark.parametrize("task", LABELS)
def test_labels_are_never_an_error_where_no_source_comes_again(task: str) -> None:
    pairs = [(text, LABELS[task](text)) for text in strings(400, 12, 10, 12)]
    assert judged(pairs).state in ("in step", "not told")
    assert judged(shuffled(pairs)).state in ("in step", "not told")


@pytest.mark.parametrize("task", ["parity", "most", "checksum"])
def test_labels_of_sources_that_come_again_are_found(task: str) -> None:
    pairs = [(text, LABELS[task](text)) for text in strings(600, 3, 4, 4)]
    assert judged(pairs).state == "in step"
    assert judged(shuffled(pairs)).state == "out of step"


def test_what_stands_in_every_source_is_no_matter() -> None:
    long = "translate from the one made language to the other: "
    pairs = [(long + source, target) for source, target in translations(300)]
    assert judged(pairs, by_words).state == "in step"
    assert judged(shuffled(pairs), by_words).state == "out of step"


def test_many_copies_and_one_common_target() -> None:
    pairs = [(text, text[::-1]) for text in strings(300, 5, 8, 8)]
    copies = [pairs[i % 60] for i in range(300)]
    common = [(s, "no answer" if i % 2 else t) for i, (s, t) in enumerate(pairs)]
    for each in (copies, common):
        assert judged(each).state == "in step"
    assert judged(shuffled(copies)).state == "out of step"


def test_a_conversation_goes_on_from_line_to_line() -> None:
    said = [f"{a} {b}" for a, b in zip(strings(401, 26, 4, 9, 1), strings(401, 26, 4, 9, 2), strict=True)]
    turns = [f"{said[i]} {said[i - 1].split()[0]}" for i in range(401)]  # each takes up a word of the one before
    assert judged(list(pairwise(turns))).state == "in step"
    assert judged(list(pairwise(said))).state == "not told"  # nothing taken up


def test_one_line_too_many_is_found_with_the_line() -> None:
    pairs = [(text, text[::-1]) for text in strings(801, 5, 8, 8)]
    late = [(s, t) for (s, _), (_, t) in pairwise(pairs)]
    found = judged(late)
    assert found.state == "out of step" and "with the previous line's target" in found.words
    half = judged([*pairs[:400], *late[400:]])
    assert half.state == "out of step" and "from line 401 to" in half.words


def test_labels_in_blocks_are_in_step() -> None:
    """Sorted by label: a quarter has one label only, and tells nothing."""
    texts = strings(400, 12, 10, 12)
    pairs = [(f"good {t}" if i < 220 else f"bad {t}", "yes" if i < 220 else "no") for i, t in enumerate(texts)]
    assert judged(pairs).state == "in step"


def test_features_are_told_by_their_course() -> None:
    """What the first third says, the mean of all does not."""
    rng = np.random.default_rng(0)
    matrices, targets = [], []
    for _ in range(300):
        order = rng.permutation(6)[:3]
        matrices.append(np.concatenate([np.eye(6)[i] + 0.3 * rng.normal(size=(4, 6)) for i in order]))
        targets.append(" ".join(f"word{i}" for i in order))
    examples = [Example(str(i), t, frames=12, where=f"line {i}") for i, t in enumerate(targets)]

    def state(right: list[str]) -> str:
        ids = by_bytes(right)

        def sides(a: np.ndarray, b: np.ndarray) -> tuple[Features, Texts]:
            source = Features(np.stack([in_thirds(matrices[i]) for i in a]), [12] * len(a))
            return source, Texts([right[i] for i in b], [ids[i] for i in b])

        return pairing(examples, sides).state

    assert state(targets) == "in step"
    assert state([targets[i] for i in rng.permutation(300)]) == "out of step"


def test_deviations_of_shuffled_sides_are_0_and_1() -> None:
    rng = np.random.default_rng(1)
    x, y = (rng.normal(size=(120, size)).astype(np.float32) for size in (5, 8))
    left = Kernel(x @ x.T)
    drawn = [goes_with(left, Kernel(y[order] @ y[order].T)) for order in (rng.permutation(120) for _ in range(300))]
    assert abs(np.mean(drawn)) < 0.15 and 0.85 < np.std(drawn) < 1.1
    assert goes_with(left, Kernel(x @ x.T)) > 15
    assert goes_with(left, Kernel(np.ones((120, 120), dtype=np.float32))) == 0


def test_shuffled_sets_stay_below_chance() -> None:
    pairs = [(text, text[::-1]) for text in strings(200, 4, 3, 7)]
    for seed in range(5):
        wrong = shuffled(pairs, seed)
        sides = [[pair[k] for pair in wrong] for k in (0, 1)]
        assert relation(*(Texts(side, by_threes(side)) for side in sides)).strongest < CHANCE
