"""DAT019: groups in both splits."""

from __future__ import annotations

from pathlib import Path

import pytest

from sourcewise.diagnosis import ours
from sourcewise.diagnosis.rules import look
from sourcewise.training.setup import set_up
from tests.diagnosis.rules.leaking import Recipe, clips, found, levels, rows, texts, walks

CODE = "DAT019"


@pytest.mark.parametrize(
    ("column", "level"),
    [
        ("recording", "warning"),
        ("VIDEO_NAME", "warning"),
        ("group", "warning"),
        ("session id", "warning"),
        ("speaker", "note"),
        ("client_id", "note"),
        ("Signer-ID", "note"),
        ("performer", "note"),
    ],
)
def test_a_group_of_both_splits_is_told_with_its_rows(tmp_path: Path, column: str, level: str) -> None:
    train = rows(60, 0, **{column: lambda i: f"g{i // 5}"})
    valid = rows(20, 1, **{column: lambda i: f"g{i // 5}" if i < 5 else f"h{i}"})
    finding = found(texts(tmp_path, train, valid=valid))[CODE]
    assert finding.level == level
    assert "of 5 of 20 examples is in the training set (1 of 16" in finding.evidence
    assert "train.tsv:2; lines 2, 3, 4, …" in finding.evidence


@pytest.mark.parametrize("column", ["recording", "speaker", "group"])
def test_splits_without_a_group_in_common_are_silent(tmp_path: Path, column: str) -> None:
    train, valid = (rows(60, seed, **{column: lambda i, seed=seed: f"{seed}-{i // 5}"}) for seed in (0, 1))
    assert levels(texts(tmp_path, train, valid=valid)) == {}


def test_cells_that_name_nobody_are_no_group(tmp_path: Path) -> None:
    train, valid = (
        rows(60, seed, speaker=lambda i, seed=seed: "unknown" if i % 2 else f"{seed}{i}") for seed in (0, 1)
    )
    assert levels(texts(tmp_path, train, valid=valid)) == {}


def test_few_of_a_set_are_a_note_and_the_test_set_is_looked_at_too(tmp_path: Path) -> None:
    train = rows(60, 0, recording=lambda i: f"r{i}")
    valid = rows(60, 1, recording=lambda i: f"r{i}" if i < 2 else f"v{i}")
    test = rows(60, 2, recording=lambda i: f"r{i}" if i < 30 else f"t{i}")
    assert levels(texts(tmp_path, train, valid=valid)) == {CODE: "note"}
    both = found(texts(tmp_path, train, valid=valid, test=test))[CODE]
    assert both.level == "warning" and "valid.tsv: the" in both.evidence and "test.tsv: the" in both.evidence


def test_numbers_from_one_on_may_begin_anew_in_each_file(tmp_path: Path) -> None:
    train, valid = (rows(count, seed, recording=lambda i: str(1 + i // 5)) for count, seed in ((60, 0), (30, 1)))
    finding = found(texts(tmp_path, train, valid=valid))[CODE]
    assert finding.level == "note" and "begin anew in each file" in finding.evidence


def test_groups_are_found_in_ids_too(tmp_path: Path) -> None:
    train = rows(60, 0, id=lambda i: f"tv{i // 6}-{i}")
    valid = rows(24, 1, id=lambda i: f"tv{i // 6 + 8}-{i}")
    tree = texts(tmp_path, train, valid=valid)
    assert CODE not in levels(tree)
    tree["data"]["group"] = r"^(.*)-\d+$"
    finding = found(tree)[CODE]
    assert finding.level == "warning" and "the group of 12 of 24 examples" in finding.evidence


def test_groups_of_clips(tmp_path: Path) -> None:
    tree = clips(tmp_path, walks(60, 0), valid=walks(20, 1))
    for use in ("train", "valid"):
        path = Path(tree["data"][use]["manifest"])
        head, *lines = path.read_text().splitlines()
        named = [f"{line}\ts{i % 4}" for i, line in enumerate(lines)]
        path.write_text("\n".join([f"{head}\tsigner", *named]) + "\n")
    finding = found(tree)[CODE]
    assert finding.level == "note" and "the signer of 20 of 20 examples" in finding.evidence


def test_a_set_that_names_no_groups_cannot_be_told(tmp_path: Path) -> None:
    setup = set_up(Recipe.model_validate(texts(tmp_path, rows(60, 0, signer=lambda i: f"s{i}"), valid=rows(20, 1))))
    piece = look(ours.pairs_of(setup, ours.plan_of(setup.recipe, setup.train)), codes=CODE)
    assert not piece.findings and any(
        "signer" in words and "valid.tsv names none" in words for words in piece.not_checked
    )
