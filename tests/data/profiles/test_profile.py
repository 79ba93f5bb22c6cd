"""Profiles: what is kept, how it is read back, and that sets of one kind look alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sourcewise.data.examples import Dataset, Example, Task
from sourcewise.data.profiles.profile import like, profile_of, read_profiles, write_profiles
from sourcewise.data.profiles.texts import habits, profile_texts, shape
from sourcewise.errors import RequestError
from tests.baselines.sets import clips, texts, translations


def features(count: int = 30) -> Dataset:
    rng = np.random.default_rng(0)
    return clips([rng.standard_normal((9, 5)) for _ in range(count)], [f"text {i}" for i in range(count)])


@pytest.mark.parametrize("made", [lambda: texts(translations(50)), features, lambda: texts([("ä\ud800", "")])])
def test_it_is_read_back_as_it_was(tmp_path: Path, made) -> None:
    profile = profile_of(made())
    write_profiles([profile, profile], tmp_path / "profile.npz")
    read = read_profiles(tmp_path / "profile.npz")
    assert len(read) == 2
    assert repr(read[0]) == repr(profile)


@pytest.mark.parametrize("damage", [b"", b"PK", b"\x93NUMPY", b"{}"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: bytes) -> None:
    assert read_profiles(tmp_path / "none.npz") == []
    (tmp_path / "profile.npz").write_bytes(damage)
    with pytest.raises(RequestError, match="not what a training writes"):
        read_profiles(tmp_path / "profile.npz")


def test_nothing_in_it_is_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "profile.npz", json=np.array([{"version": 1}], dtype=object))
    with pytest.raises(RequestError, match="delete it"):
        read_profiles(tmp_path / "profile.npz")


def test_shapes() -> None:
    assert shape("2020-01-31") == "9999-99-99" and shape("31 Jan 2020") == "99 Aa 9999"
    assert shape("Hello  you,\tSIR!") == "Aa a, A!" and shape("") == ""
    assert shape("Größe") == shape("Gro\u0308ße") == "Aa"


def test_habits_are_shares() -> None:
    found = habits(["Ja .", "nein", "", "ÄÖ"])
    assert found["begins with a capital"] == 0.5 and found["holds a mark with a space before it"] == 0.25
    assert found["is in capitals throughout"] == found["has an accent"] == 0.25
    assert habits(["да", "yes"])["holds a letter that is not Latin"] == 0.5
    assert habits(["a\u0308", "ä"])["is composed (NFC)"] == 0.5


def test_held_back_texts_say_how_much_is_new() -> None:
    rng = np.random.default_rng(0)
    noise = profile_texts(["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 12)) for _ in range(40)])
    same = profile_texts(["the same text"] * 40)
    assert noise.fresh > 0.5 and same.fresh == 0 and same.odd == 0


def test_texts_that_come_several_times_do_not_say_that_nothing_is_new() -> None:
    rng = np.random.default_rng(1)
    dates = [
        f"{rng.integers(1, 29)} {''.join(rng.choice(list('abcdefghijklm'), 4))} {rng.integers(1900, 2100)}"
        for _ in range(400)
    ]
    once, thrice = profile_texts(dates), profile_texts([text for text in dates for _ in range(3)])
    assert thrice.fresh == pytest.approx(once.fresh, rel=0.2) and thrice.fresh > 0.02
    labels = profile_texts([f"label {i}" for i in range(10) for _ in range(40)])
    assert labels.fresh == 0 and labels.unseen(["quite another"]) > 0.5


def test_a_set_is_held_against_its_task() -> None:
    one, other = (profile_of(Dataset([Example("0", "a", "b")], "x", task=Task(name))) for name in ("one", "two"))
    asked = Dataset([Example("0", "c", "d")], "y", task=Task("two"))
    assert like([one, other], asked) is other and like([one], asked) is one
    assert like([one, other], Dataset([Example("0", "c")], "y")) is None and like([], asked) is None
    assert like([one], features()) is None
