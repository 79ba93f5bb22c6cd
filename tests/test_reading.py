"""What command lines do with files that are not quite as they should be: nothing lost, nothing said of nothing."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from sourcewise.cli import main
from sourcewise.data.readers.pairs import read_pairs
from tests.commands import TINY, Models, write_features

PAIRS = "source\ttarget\n" + "".join(f"ba do {i}\t{'' if i % 5 == 1 else f'ki {i}'}\n" for i in range(20))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_bad_rows_are_told_at_once_or_left_out(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "x.tsv").write_text(PAIRS)
    words = f"train --name r {TINY} --data.train.pairs x.tsv --data.valid.pairs x.tsv".split()
    assert main(words) == 2
    said = capsys.readouterr().err
    assert (
        "x.tsv:3: the target is empty; " in said
        and "(4 of 20 rows are bad: the target is empty (4: lines 3, 8, 13, …))" in said
    )
    assert main([*words, "--data.skip_bad", "true"]) == 0
    assert "left out (skip_bad): the target is empty (4)" in capsys.readouterr().err
    notes = (here / "runs/r/notes.tsv").read_text().splitlines()
    assert notes[1:] == [f"x.tsv\tx.tsv:{n}\tleft out (skip_bad): the target is empty" for n in (3, 8, 13, 18)]
    assert main(["diagnose", "r.yaml"]) == 2
    (here / "r.yaml").write_text("data: {train: {pairs: x.tsv}, skip_bad: true, vocabulary: 40}\n")
    capsys.readouterr()
    main(["diagnose", "r.yaml"])
    assert "4 rows of x.tsv (DAT001): left out (skip_bad): the target is empty" in capsys.readouterr().out


def test_missing_files_are_counted_in_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_features(here, lengths=(6, 8, 5, 7, 6))
    for i in (1, 3):
        (here / f"features/clip{i}.npy").unlink()
    assert main(f"train --name r {TINY} --data.train.manifest m.tsv --data.train.features features".split()) == 2
    said = capsys.readouterr().err
    assert "m.tsv:3: features/clip1.npy: no such file" in said and "no such file (2: lines 3, 5)" in said
    assert said.count("\n") == 1


SOURCES = {
    "old Macs": (b"ba\rdo\r\rki\r", 4),
    "Acorn": (b"ba\n\rdo\n\rki\n\r", 3),
    "UTF-16": ("ba\r\ndo\r\n".encode("utf-16"), 2),
    "quotes and tabs": (b'"ba\n"do"\t"ki"\n', 2),
    "separators of Unicode": ("ba\u2028do\x85\x0c\nki\n".encode(), 2),
}


@pytest.mark.parametrize("case", SOURCES)
def test_as_many_outputs_as_sources(
    case: str, here: Path, models: Models, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, count = SOURCES[case]
    (here / "x.txt").write_bytes(data)
    assert main(["generate", str(models.text), "x.txt", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.split("\n")[:-1]]
    assert len(rows) == count
    (here / "out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    again = read_pairs(here / "out.jsonl", target=None)
    assert [example.source for example in again] == [row["source"] for row in rows]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert main(["generate", str(models.text)]) == 0
    assert capsys.readouterr().out.count("\n") == count


@pytest.mark.parametrize(
    "data, message",
    [
        (b"ba\x1b[31m\rdo\nki\n", r"1: a carriage return (\r) within a line"),
        ("ba\nki\n".encode("utf-16-le"), "is UTF-16LE without a byte order mark"),
        (b"ba\n" + b"\0" * 9, "2: the first of 9 NUL bytes"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    data: bytes, message: str, here: Path, models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "x\x1b.txt").write_bytes(data)
    assert main(["generate", str(models.text), "x\x1b.txt"]) == 2
    said = capsys.readouterr()
    assert message in said.err and r"x\x1b.txt" in said.err
    assert said.err.count("\n") == 1 and said.err[:-1].isprintable() and not said.out


def test_csv_goes_where_tsv_goes(here: Path, models: Models, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "x.csv").write_text('source;target\n"ba; ""do""\nki";"ba\nba"\ndo;ki\n', encoding="utf-8")
    assert main(["generate", str(models.text), "x.csv", "--json"]) == 0
    rows = [json.loads(line)["source"] for line in capsys.readouterr().out.split("\n")[:-1]]
    assert rows == ['ba; "do"\nki', "do"]
    assert main(["evaluate", str(models.text), "x.csv", "-o", "out"]) == 0
    assert "semicolons stand between its columns" in capsys.readouterr().err
    back = read_pairs(here / "out/translations.tsv", source="reference", target=None)
    assert [example.source for example in back] == ["ba\nba", "ki"]
