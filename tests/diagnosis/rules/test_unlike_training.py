"""DAT022 to DAT024: sets that are not like the training data, in many ways; and those that are."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

import sourcewise
from sourcewise.data.examples import Dataset
from sourcewise.data.open import open_dataset
from sourcewise.data.profiles.profile import Profile, profile_of
from sourcewise.diagnosis.beside import Beside
from sourcewise.diagnosis.rules import look
from tests.baselines.sets import clips, texts
from tests.training.recipes import recipe

LEFT = ["the", "a", "my", "your", "every", "some"]
NOUNS = ["Hund", "Katze", "Straße", "Brücke", "Müller", "Stadt", "Zug", "Schiff", "Vogel", "Baum", "Kind", "Garten"]
VERBS = ["sieht", "hört", "findet", "sucht", "mag", "nimmt"]
Change = Callable[[str], str]


def sentences(size: int, seed: int, *, prefix: str = "") -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)

    def one() -> tuple[str, str]:
        a, v, b = rng.choice(NOUNS), rng.choice(VERBS), rng.choice(NOUNS)
        day = f"{rng.integers(1, 29):02d}.{rng.integers(1, 13):02d}.{rng.integers(1990, 2030)}"
        return f"{prefix}{a} {v} {b}, {day}.", f"{day[6:]}-{day[3:5]}-{day[:2]}"

    return [one() for _ in range(size)]


TRAIN = profile_of(texts(sentences(800, 0, prefix="date: ")))


def found(profile: Profile, dataset: Dataset) -> dict[str, str]:
    piece = look(Beside(profile, dataset))
    assert not piece.not_checked
    return {finding.code: finding.evidence for finding in piece.findings}


SOURCES: dict[str, tuple[Change, str]] = {
    "prefix left out": (lambda s: s.removeprefix("date: "), '"date: "'),
    "another prefix": (lambda s: s.replace("date: ", "translate to date >> "), "do not occur|have not"),
    "small letters": (str.lower, "hold a capital|do not occur"),
    "capitals": (str.upper, "in capitals throughout"),
    "decomposed": (lambda s: unicodedata.normalize("NFD", s), "composed|do not occur"),
    "accents lost": (
        lambda s: unicodedata.normalize("NFD", s).encode("ascii", "ignore").decode(),
        "do not occur|accent",
    ),
    "another script": (lambda s: s.translate(str.maketrans("aeinrstdhuzcbgkmv", "аеинрстдхузцбгкмв")), "do not occur"),
    "tokenised": (lambda s: s.replace(",", " ,").replace(".", " ."), "space before it|do not occur"),
    "letters apart": (" ".join, "do not occur"),
    "turned": (lambda s: s[::-1], "do not occur"),
    "an end mark": (lambda s: s + " </s>", "have not"),
}


@pytest.mark.parametrize("kind", list(SOURCES))
def test_sources(kind: str) -> None:
    change, said = SOURCES[kind]
    pairs = [(change(source), target) for source, target in sentences(120, 1, prefix="date: ")]
    evidence = found(TRAIN, texts(pairs)).get("DAT022", "")
    assert any(words in evidence for words in said.split("|")), evidence


TARGETS: dict[str, Change] = {
    "day first": lambda t: f"{t[8:]}-{t[5:7]}-{t[:4]}",
    "slashes": lambda t: t.replace("-", "/"),
    "without century": lambda t: t[2:],
    "a mark at the end": lambda t: t + ".",
    "in words": lambda t: "twenty twenty",
}


@pytest.mark.parametrize("kind", list(TARGETS))
def test_targets(kind: str) -> None:
    pairs = [(source, TARGETS[kind](target)) for source, target in sentences(120, 1, prefix="date: ")]
    assert "DAT023" in found(TRAIN, texts(pairs))


def moving(count: int, seed: int, dims: int = 12, shift: float = 0.0) -> list[np.ndarray]:
    """Clips of a slowly moving state, some dimensions of it related, with a rise from beginning to end."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).standard_normal((4, dims))
    scale = np.random.default_rng(98).uniform(0.5, 3, dims)
    made = []
    for _ in range(count):
        state = np.cumsum(rng.standard_normal((int(rng.integers(30, 60)), 4)), axis=0) * 0.2
        rise = np.linspace(-1, 1, len(state))[:, None] * np.array([1.0, 0.5, 0, 0])
        speaker = 0.3 * rng.standard_normal(dims) + shift
        noise = 0.2 * rng.standard_normal((len(state), dims))
        made.append(((state + rise) @ mix + noise + speaker) * scale + np.arange(dims))
    return made


def spoken(matrices: Sequence[np.ndarray]) -> Dataset:
    return clips(matrices, ["one two three four"] * len(matrices))


CLIPS = profile_of(spoken(moving(200, 0)))
FEATURES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "ten times as large": (lambda m: 10 * m, "times as much"),
    "standardised": (lambda m: (m - m.mean(0)) / m.std(0), "deviations of the training|times as much"),
    "shifted": (lambda m: m + 30, "deviations of the training"),
    "dimensions turned": (lambda m: m[:, ::-1], "deviations of the training|in another order"),
    "dimensions moved by one": (lambda m: np.roll(m, 1, axis=1), "in another order|deviations"),
    "shuffled in time": (lambda m: np.random.default_rng(0).permutation(m), "hardly tells the next"),
    "turned in time": (lambda m: m[::-1], "turned in time"),
    "every fourth frame": (lambda m: m[::4], "frames a target word"),
    "each frame three times": (lambda m: np.repeat(m, 3, axis=0), "frames a target word"),
    "small numbers": (lambda m: m / 255, "times as much"),
}


@pytest.mark.parametrize("kind", list(FEATURES))
def test_features(kind: str) -> None:
    change, said = FEATURES[kind]
    evidence = found(CLIPS, spoken([change(m) for m in moving(60, 1)])).get("DAT024", "")
    assert any(words in evidence for words in said.split("|")), evidence


def test_another_order_of_standardised_dimensions() -> None:
    """Level and spread say nothing: only how dimensions go together does."""
    train, other = (np.concatenate(moving(100, seed)) for seed in (0, 1))
    cut = [(m - train.mean(0)) / train.std(0) for m in (train, other)]
    one, two = (np.array_split(m, 100) for m in cut)
    order = np.random.default_rng(3).permutation(12)
    evidence = found(profile_of(spoken(one)), spoken([m[:, order] for m in two]))["DAT024"]
    assert "in another order" in evidence


@pytest.mark.parametrize("seed", range(5))
def test_more_of_the_same_is_like_it(seed: int) -> None:
    assert found(TRAIN, texts(sentences(25, seed + 5, prefix="date: "))) == {}
    assert found(CLIPS, spoken(moving(25, seed + 5))) == {}
    assert found(CLIPS, spoken(moving(40, seed + 5, shift=0.4))) == {}  # a new speaker


@pytest.mark.parametrize("name", ["digits", "dates"])
@pytest.mark.parametrize("limit", [40, 300])
def test_embedded_sets_are_like_themselves(name: str, limit: int) -> None:
    from sourcewise.config import DatasetConfig

    train = open_dataset(DatasetConfig(builtin=name, limit=limit), None, "train")
    assert found(profile_of(train), open_dataset(DatasetConfig(builtin=name), None, "valid")) == {}


def test_a_handful_cannot_tell() -> None:
    piece = look(Beside(TRAIN, texts([("x", "y")] * 3)))
    assert not piece.findings and "whether it is like the training data" in piece.not_checked[0]


def test_sources_that_hold_their_target_in_training_alone() -> None:
    told = profile_of(texts([(f"{source} {target}", target) for source, target in sentences(300, 0)]))
    asked = texts(
        [(f"{source} {sentences(1, i + 900)[0][1]}", target) for i, (source, target) in enumerate(sentences(60, 1))]
    )
    assert "0 % of the sources hold their target, in training 100 %" in found(told, asked)["DAT022"]


def test_it_is_the_first_cause_in_a_diagnosis(tmp_path: Path) -> None:
    """A run keeps its profile; the set that it is asked about has lost its prefix and its case."""
    made = recipe(tmp_path)
    for name, seed, size in (("train", 0, 400), ("valid", 1, 60)):
        rows = [f"{s}\t{t}" for s, t in sentences(size, seed, prefix="date: ")]
        (tmp_path / f"{name}.tsv").write_text("\n".join(["source\ttarget", *rows]) + "\n")
    rows = [f"{s.lower()}\t{t}" for s, t in sentences(60, 2)]
    (tmp_path / "other.tsv").write_text("\n".join(["source\ttarget", *rows]) + "\n")
    sets = {"train": {"pairs": str(tmp_path / "train.tsv")}, "valid": {"pairs": str(tmp_path / "valid.tsv")}}
    run = sourcewise.train(made.model_copy(update={"data": made.data.model_validate(sets | {"vocabulary": 64})}))
    assert run.profile.is_file()
    assert "DAT022" not in [f.code for f in sourcewise.diagnose(run.folder).findings]
    for path in ("train.tsv", "valid.tsv"):
        (tmp_path / path).unlink()  # the profile is enough
    told = sourcewise.diagnose(run.folder, tmp_path / "other.tsv")
    assert told.findings[0].code == "DAT022" and '"date: "' in told.findings[0].evidence
