"""`sourcewise diagnose DATA [DATA]`: what a set shows by itself, and beside another one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import sourcewise
from sourcewise.cli import main
from sourcewise.errors import RequestError
from tests.diagnosis.test_data_rules import shuffled, translations


def table(path: Path, pairs: list[tuple[str, str]], names: str = "source\ttarget") -> str:
    path.write_text("".join(f"{line}\n" for line in [names, *("\t".join(pair) for pair in pairs)]))
    return str(path)


def test_a_healthy_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", table(tmp_path / "t.tsv", translations()), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["findings"] == [] and any("these are data alone" in words for words in said["not_checked"])


def test_faults_of_the_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path / "t.tsv", shuffled(translations()), "en\tde")
    assert main(["diagnose", path, "--source", "en", "--target", "de"]) == 1
    assert "DAT003" in capsys.readouterr().out


def test_a_second_set_beside_it(tmp_path: Path) -> None:
    train = table(tmp_path / "train.tsv", translations())
    held = [(source.upper(), target) for source, target in translations(60, 1)]
    found = sourcewise.diagnose(train, table(tmp_path / "test.tsv", held))
    assert {finding.code for finding in found.findings} == {"DAT006", "DAT022"}  # capitals that are not in train
    again = sourcewise.diagnose(train, table(tmp_path / "copy.tsv", translations()[:60]))
    assert "DAT008" in [finding.code for finding in again.findings]


def test_features(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "features").mkdir()
    for i in range(60):
        np.save(tmp_path / "features" / f"c{i}.npy", np.full((5, 4), rng.standard_normal(), dtype=np.float32))
    rows = [(f"c{i}", f"text number {i}") for i in range(60)]
    found = sourcewise.diagnose(table(tmp_path / "m.tsv", rows, "id\ttarget"), features=str(tmp_path / "features"))
    assert all(finding.code.startswith("DAT") for finding in found.findings)


def test_what_cannot_be_read_is_a_finding_or_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = table(tmp_path / "empty.tsv", [("a", ""), ("b", "")])
    assert main(["diagnose", empty]) == 1
    assert "DAT001" in capsys.readouterr().out
    assert main(["diagnose", table(tmp_path / "t.tsv", translations()), "--beams", "4"]) == 2
    assert "beams: goes with a model; these are data alone" in capsys.readouterr().err
    with pytest.raises(RequestError, match=r"none\.tsv"):
        sourcewise.diagnose(tmp_path / "none.tsv")
