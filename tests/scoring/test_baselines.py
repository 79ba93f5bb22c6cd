"""`sourcewise score --train`: systems beside the baselines of a training set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sourcewise.cli import main
from tests.baselines.sets import translations

TRAIN, TEST = translations(400), translations(80, seed=1)
NAMES = ["constant (baseline)", "length (baseline)", "copy (baseline)"]


def table(path: Path, pairs: Sequence[tuple[str, str]], names: str = "source\ttarget") -> str:
    path.write_text("\n".join([names, *("\t".join(pair) for pair in pairs)]) + "\n")
    return str(path)


def lines(path: Path, texts: Sequence[str]) -> str:
    path.write_text("".join(f"{text}\n" for text in texts))
    return str(path)


def scored(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert main(["score", *words, "--metrics", "bleu,wer", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_system_has_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, test = table(tmp_path / "train.tsv", TRAIN), table(tmp_path / "test.tsv", TEST)
    targets = [target for _, target in TEST]
    good = lines(tmp_path / "good.txt", [t if i % 5 else TRAIN[i][1] for i, t in enumerate(targets)])
    same = lines(tmp_path / "same.txt", [TRAIN[0][1]] * len(TEST))
    found = scored(capsys, test, good, same, "--train", train)
    assert [each["name"] for each in found["systems"]] == [good, same, *NAMES]
    assert [each.get("level", "") for each in found["systems"]] == ["above copying", "failed", "", "", ""]
    assert found["systems"][1]["place"].startswith("not above one output")
    bleu = {each["name"]: each["scores"]["bleu"] for each in found["systems"]}
    assert 0 < bleu[NAMES[0]] < bleu[NAMES[2]] < bleu[good]
    copied = lines(tmp_path / "copied.txt", nearest_by_words())
    again = scored(capsys, test, copied, "--train", train)["systems"][0]
    assert again["level"] in ("below copying", "failed") and again["scores"]["bleu"] <= bleu[NAMES[2]] + 3


def test_baselines_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, test = table(tmp_path / "train.tsv", TRAIN), table(tmp_path / "test.tsv", TEST)
    assert [each["name"] for each in scored(capsys, test, "--train", train)["systems"]] == NAMES
    assert main(["score", test]) == 2
    assert "no OUTPUTS" in capsys.readouterr().err


def nearest_by_words() -> list[str]:
    """The target of the training source that shares most words, as somebody else would copy."""
    sets = [(set(source.split()), target) for source, target in TRAIN]

    def like(source: str) -> str:
        own = set(source.split())
        return max(sets, key=lambda each: len(own & each[0]) / len(own | each[0]))[1]

    return [like(source) for source, _ in TEST]


def test_targets_alone_leave_copying_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = lines(tmp_path / "train.txt", [target for _, target in TRAIN])
    test = lines(tmp_path / "test.txt", [target for _, target in TEST])
    found = scored(capsys, test, test, "--train", train)
    assert [each["name"] for each in found["systems"]] == [test, *NAMES[:2]]
    assert found["systems"][0]["level"] == "undecided"
    assert any("nothing, since" in note and "list of targets" in note for note in found["notes"])


def test_references_without_sources_leave_copying_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test = lines(tmp_path / "test.txt", [target for _, target in TEST])
    found = scored(capsys, test, test, "--train", table(tmp_path / "train.tsv", TRAIN))
    assert [each["name"] for each in found["systems"]] == [test, *NAMES[:2]]
    assert any("has no sources" in note for note in found["notes"])


def features(folder: Path, targets: Sequence[str], seed: int) -> tuple[str, str]:
    """A manifest and its folder: frames are the words of a target, with noise."""
    rng, places = np.random.default_rng(seed), np.random.default_rng(0).standard_normal((60, 8))
    folder.mkdir()
    for i, target in enumerate(targets):
        frames = np.repeat(places[[int(word[1:]) for word in target.split()]], 3, axis=0)
        np.save(folder / f"c{i}.npy", (frames + 0.1 * rng.standard_normal(frames.shape)).astype(np.float32))
    return table(folder.with_suffix(".tsv"), [(f"c{i}", t) for i, t in enumerate(targets)], "id\ttarget"), str(folder)


def test_features_are_copied_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, train_folder = features(tmp_path / "train", [t for _, t in TRAIN], 1)
    test, folder = features(tmp_path / "test", [t for _, t in TEST], 2)
    outputs = lines(tmp_path / "out.txt", [t for _, t in TEST])
    options = ["--features", folder, "--train", train, "--train-features", train_folder]
    found = scored(capsys, test, outputs, *options)
    assert [each["name"] for each in found["systems"]] == [outputs, *NAMES]
    assert found["systems"][0]["level"] == "above copying"


def test_a_system_that_has_the_name_of_a_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    train, test = table(tmp_path / "train.tsv", TRAIN), table(tmp_path / "test.tsv", TEST)
    lines(tmp_path / NAMES[0], [t for _, t in TEST])
    assert main(["score", test, NAMES[0], "--train", train]) == 2
    assert "is the name of a baseline" in capsys.readouterr().err


def test_pages_say_the_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, test = table(tmp_path / "train.tsv", TRAIN), table(tmp_path / "test.tsv", TEST)
    out, page = lines(tmp_path / "out.txt", [t for _, t in TEST]), tmp_path / "scores.md"
    assert main(["score", test, out, "--train", train, "--metrics", "bleu", "--markdown", str(page)]) == 0
    assert "Beside the baselines" in capsys.readouterr().out
    assert f"| {out} | above copying | above copying the target of the nearest" in page.read_text()
