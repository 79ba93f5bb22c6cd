"""Sources that are the ids of their rows, other adapters than those that learn, sources cut at one length."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.diagnosis.test_data_rules import found, recipe, translations

TENS = ["null", "zehn", "zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"]
ONES = ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"]


# ── sources that are ids ──────────────────────────────────────────────────────────────────────────────────────────────


def by_length(size: int) -> list[tuple[str, str]]:
    """Pairs whose targets get longer from the first to the last."""
    return sorted(translations(size), key=lambda pair: len(pair[1].split()))


@pytest.mark.parametrize(
    "name",
    [
        lambda row: f"talk{row // 40}_{row % 40:02d}.wav",
        lambda row: f"{row + 1}",
        lambda row: f"corpus/2019/{7 * row:06d}",
        lambda row: f"{'dev' if row % 5 else 'extra'}-{row}",
    ],
)
@pytest.mark.parametrize("size", [400, 1500])
def test_ids_in_the_place_of_texts(tmp_path: Path, name: Callable[[int], str], size: int) -> None:
    finding = found(recipe(tmp_path, [(name(row), b) for row, (_, b) in enumerate(translations(size))]))["DAT003"]
    assert finding.level == "error" and f"running ids, each of which occurs once: {name(0)}, " in finding.evidence


def test_ids_that_go_with_a_set_which_drifts(tmp_path: Path) -> None:
    pairs = [(f"sent{row:04d}", b) for row, (_, b) in enumerate(by_length(900))]
    tree = recipe(tmp_path, pairs)
    tree["data"]["train"] |= {"source": "source", "target": "target"}
    assert "(column source) are running ids" in found(tree)["DAT003"].evidence


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (lambda n: f"{n}", lambda n: f"{ONES[n // 100]} hundert {TENS[n // 10 % 10]} {ONES[n % 10]}"),
        (lambda n: f"kapitel{n}", lambda n: f"{ONES[n // 100]} hundert {TENS[n // 10 % 10]} {ONES[n % 10]}"),
        (lambda n: f"bild_{n:04d}", lambda n: f"figure {n} of the book"),
        (lambda n: f"{n}", lambda n: "gerade" if n % 2 == 0 else "ungerade"),
        (lambda n: f"zahl{n}", lambda n: "gerade" if n % 2 == 0 else "ungerade"),
        (lambda n: f"{n // 30} + {n % 30}", lambda n: f"{n // 30 + n % 30}"),
    ],
)
def test_running_numbers_that_are_to_be_read(
    tmp_path: Path, source: Callable[[int], str], target: Callable[[int], str]
) -> None:
    assert "DAT003" not in found(recipe(tmp_path, [(source(n), target(n)) for n in range(900)]))
