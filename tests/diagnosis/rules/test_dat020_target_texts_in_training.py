"""DAT020: target texts of the validation set in the training set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.diagnosis.rules.leaking import clips, found, levels, rows, texts, walks

CODE = "DAT020"


@pytest.mark.parametrize(("copied", "level"), [(2, "note"), (3, "note"), (12, "warning")])
def test_texts_of_both_sets_are_told_with_their_rows(tmp_path: Path, copied: int, level: str) -> None:
    train, valid = rows(400, 0), rows(80, 1)
    for i in range(copied):
        valid[3 * i]["target"] = train[7 * i]["target"]
    finding = found(texts(tmp_path, train, valid=valid))[CODE]
    assert finding.level == level
    assert f"{copied} of 80 validation targets" in finding.evidence
    assert "lines 2 (train.tsv:2), 5 (train.tsv:9)" in finding.evidence


def test_texts_of_clips_are_told_too(tmp_path: Path) -> None:
    tree = clips(tmp_path, walks(80, 0), valid=walks(40, 1))
    train, valid = (Path(tree["data"][use]["manifest"]) for use in ("train", "valid"))
    targets = [line.split("\t")[2] for line in train.read_text().splitlines()[1:]]
    head, *lines = valid.read_text().splitlines()
    lines[:10] = ["\t".join([*line.split("\t")[:2], targets[i]]) for i, line in enumerate(lines[:10])]
    valid.write_text("\n".join([head, *lines]) + "\n")
    finding = found(tree)[CODE]
    assert finding.level == "warning" and "10 of 40 validation targets" in finding.evidence


def closed(size: int, seed: int, kind: str) -> list[dict[str, str]]:
    """Tasks with few targets: digits read out, labels, years."""
    rng = np.random.default_rng(seed)
    digits = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    of = {
        "digits": lambda: " ".join(rng.choice(digits, rng.integers(2, 4))),
        "labels": lambda: str(rng.choice(["good", "bad", "neither"])),
        "years": lambda: str(rng.integers(1950, 2050)),
    }[kind]
    return [{"source": row["source"], "target": of()} for row in rows(size, seed)]


@pytest.mark.parametrize("kind", ["digits", "labels", "years"])
def test_few_targets_are_shared_by_nature(tmp_path: Path, kind: str) -> None:
    assert levels(texts(tmp_path, closed(400, 2, kind), valid=closed(80, 3, kind)), CODE) == {}


def test_more_than_what_is_shared_by_nature_is_told(tmp_path: Path) -> None:
    train, valid = closed(400, 2, "years"), rows(80, 3)
    many = [{"source": row["source"], "target": f"{i} x"} for i, row in enumerate(rows(400, 2))]
    for i in range(40):
        valid[i]["target"] = many[i]["target"]
    finding = found(texts(tmp_path, many, valid=valid))[CODE]
    assert finding.level == "warning" and "40 of 80" in finding.evidence and "0.0 % are usual" in finding.evidence
    assert levels(texts(tmp_path, train, valid=closed(80, 4, "years")), CODE) == {}


def test_other_sets_share_none(tmp_path: Path) -> None:
    assert levels(texts(tmp_path, rows(400, 0), valid=rows(80, 1), test=rows(80, 2))) == {}
