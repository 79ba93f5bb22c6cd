"""DAT025 and OUT014: a prefix that is left out, and a search that no reference fits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sourcewise.diagnosis.asked import Asking, prefixes_of
from sourcewise.diagnosis.rules import look
from tests.diagnosis.test_wiring import prepared

PREFIXES = ["summarize: ", "translate English to German: "]


def found(asking: Asking) -> dict[str, str]:
    return {finding.code: finding.level for finding in look(asking).findings}


@pytest.fixture(scope="module")
def encoded():
    return prepared().train


@pytest.mark.parametrize(
    ("bounds", "level"),
    [
        ((100, 128), "error"),
        ((0, 3), "error"),
        ((1, 120), None),
        ((0, 128), None),
    ],
)
def test_lengths(encoded, bounds: tuple[int, int], level: str | None) -> None:
    assert found(Asking(encoded, *bounds)).get("OUT014") == level


def test_some_references(encoded) -> None:
    lengths = sorted(encoded.target_lengths.tolist())
    bound = lengths[len(lengths) * 4 // 5]  # a fifth is longer, at most
    share = sum(length > bound for length in lengths) / len(lengths)
    level = found(Asking(encoded, 0, bound)).get("OUT014")
    assert level == ("warning" if share >= 0.1 else None)


def test_prefixes(encoded) -> None:
    assert found(Asking(encoded, 0, 128, PREFIXES)) == {"DAT025": "warning"}
    assert found(Asking(encoded, 0, 128)) == {}
    starts = [example.source[:2] for example in encoded.dataset]
    assert found(Asking(encoded, 0, 128, [*PREFIXES, *starts])) == {}


@pytest.mark.parametrize(
    ("config", "prefixes"),
    [
        ({"task_specific_params": {"a": {"prefix": "do a: "}, "b": {"prefix": ""}, "c": 3}}, ["do a: "]),
        ({"prefix": "do: "}, ["do: "]),
        ({"task_specific_params": None}, []),
        ({"task_specific_params": ["a"]}, []),
    ],
)
def test_prefixes_of_a_folder(tmp_path: Path, config: dict, prefixes: list[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert prefixes_of(str(tmp_path)) == prefixes


def test_no_folder_has_no_prefixes(tmp_path: Path) -> None:
    assert prefixes_of("") == prefixes_of("org/hub-name") == prefixes_of(str(tmp_path)) == []
