"""Lines that are generated from in windows: the same outputs, ids and samples as all at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sourcewise.cli import main
from sourcewise.data import windows
from tests.commands import Models

LINES = ["ba do", "ki", "lu me no", "", "me", "no no", "ba"]


@pytest.mark.parametrize("options", ["", "--sample --seed 3", "--json --sample"])
def test_windows_change_nothing(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str) -> None:
    text = tmp_path / "in.txt"
    text.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(LINES).encode())
    command = ["generate", str(models.text), str(text), "--max-new-tokens", "6", *options.split(), "-o"]
    assert main([*command, str(tmp_path / "whole")]) == 0
    monkeypatch.setattr(windows, "WINDOW", 3)
    assert main([*command, str(tmp_path / "pieces")]) == 0
    whole, pieces = (tmp_path / name for name in ("whole", "pieces"))
    assert whole.read_text() == pieces.read_text() and len(whole.read_text().splitlines()) == len(LINES)
    if "--json" in options:
        rows = [json.loads(line) for line in pieces.read_text().splitlines()]
        assert [row["id"] for row in rows] == [str(i + 1) for i in range(len(LINES))]
        assert [row["source"] for row in rows] == LINES


def test_a_line_that_is_no_text_is_named_and_nothing_is_written(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.txt").write_bytes(b"good\ngood\ngood\nb\xffd\n")
    monkeypatch.setattr(windows, "WINDOW", 2)
    out = tmp_path / "out.txt"
    assert main(["generate", str(models.text), str(tmp_path / "in.txt"), "-o", str(out)]) == 2
    assert "in.txt:4: not UTF-8 text at byte 2 of the line" in capsys.readouterr().err
    assert not out.exists() and [p.name for p in tmp_path.iterdir()] == ["in.txt"]


def test_a_missing_file_is_told_before_the_model_is_opened(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "no/such/model", "no/such/file.txt"]) == 2
    assert "no/such/file.txt: no such file" in capsys.readouterr().err
