"""A set has the same words in every command, and is the same set there: what is generated is what is measured."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sourcewise
from sourcewise.cli import main
from sourcewise.evaluation.results import read_translations
from sourcewise.runtime.extras import parquet
from tests.commands import TINY, Models
from tests.data.published import LAYOUTS, TEXTS, Words, npy

ROWS = [("ba do", "one two"), ('ki "no"', "three"), ("lu  me", "four, five"), ("ba ki me", "six")]
SEARCH = ["--beams", "1", "--max-new-tokens", "6"]

Written = tuple[str, list[str]]  # the name of a set, and the words that go with it


def delimited(folder: Path, name: str, head: Sequence[str] = ("source", "target"), **how: Any) -> str:
    text = how.pop("encoding", "utf-8")
    with (folder / name).open("w", encoding=text, newline="") as file:
        csv.writer(file, delimiter="," if name.endswith("csv") else "\t", **how).writerows([head, *ROWS])
    return name


def jsonl(folder: Path, name: str = "set.jsonl", head: Sequence[str] = ("source", "target")) -> str:
    (folder / name).write_text("".join(json.dumps(dict(zip(head, row, strict=True))) + "\n" for row in ROWS))
    return name


def in_parquet(folder: Path) -> str:
    library = parquet(folder)
    columns = {name: [row[i] for row in ROWS] for i, name in enumerate(("source", "target"))}
    library.parquet.write_table(library.table(columns), folder / "set.parquet")
    return "set.parquet"


def conversations(folder: Path) -> str:
    turns = [[{"from": "human", "value": s}, {"from": "gpt", "value": t}] for s, t in ROWS]
    rows = [{"id": f"c{i}", "conversations": each} for i, each in enumerate(turns)]
    (folder / "talk.json").write_text(json.dumps(rows))
    return "talk.json"


TEXT: dict[str, Callable[[Path], Written]] = {
    "tsv": lambda folder: (delimited(folder, "set.tsv"), []),
    "csv": lambda folder: (delimited(folder, "set.csv"), []),
    "line ends of Windows": lambda folder: (delimited(folder, "set.tsv", lineterminator="\r\n"), []),
    "line ends of an old Mac": lambda folder: (delimited(folder, "set.tsv", lineterminator="\r"), []),
    "UTF-16": lambda folder: (delimited(folder, "set.csv", encoding="utf-16"), []),
    "a mark at the beginning": lambda folder: (delimited(folder, "set.tsv", encoding="utf-8-sig"), []),
    "jsonl": lambda folder: (jsonl(folder), []),
    "parquet": lambda folder: (in_parquet(folder), []),
    "other columns": lambda folder: (
        delimited(folder, "set.csv", ("question", "answer")),
        ["--source", "question", "--target", "answer"],
    ),
    "other columns of jsonl": lambda folder: (
        jsonl(folder, head=("question", "answer")),
        ["--source", "question", "--target", "answer"],
    ),
    "conversations": lambda folder: (conversations(folder), []),
}


def _features(layout: str) -> Callable[[Path], Written]:
    def write(folder: Path) -> Written:
        words: Words = LAYOUTS[layout](folder)
        return words["manifest"], ["--features", words["features"]] if "features" in words else []

    return write


# The column of files of the CSV is a word of recipes alone: a run that was trained on such a file knows it.
FEATURES = {layout: _features(layout) for layout in LAYOUTS if layout != "CSV"}


def run(words: Sequence[str], capsys: pytest.CaptureFixture[str], status: Sequence[int] = (0,)) -> str:
    capsys.readouterr()
    found = main(list(words))
    said = capsys.readouterr()
    assert found in status, (words, said.err)
    return said.out


def lines(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(words, capsys).splitlines()]


def every_door(model: Path, named: Written, capsys: pytest.CaptureFixture[str]) -> list[Mapping[str, Any]]:
    """Ask all commands with the same words; the rows that `generate` wrote."""
    name, words = named
    rows = lines(["generate", str(model), name, *words, *SEARCH, "--scores", "--json"], capsys)
    figures = json.loads(run(["evaluate", str(model), name, *words, *SEARCH, "-o", "out", "--json"], capsys))
    measured = read_translations(Path("out/translations.tsv"))
    assert [(row.id, row.output) for row in measured] == [(row["id"], row["output"]) for row in rows]
    scored = json.loads(run(["score", name, "out", *words, "--json"], capsys))
    (system,) = scored["systems"]
    assert scored["examples"] == len(rows) == figures["examples"]
    assert system["scores"]["chrf"] == pytest.approx(figures["chrf"])
    for row in (rows[0], rows[-1]):
        traced = json.loads(run(["trace", str(model), name, *words, "--id", row["id"], *SEARCH, "--json"], capsys))
        assert traced["output"]["text"] == row["output"]
        assert traced["output"]["score"] == pytest.approx(row["outputs"][0]["score"], abs=1e-3)
    answer = json.loads(run(["diagnose", str(model), name, *words, "--json"], capsys, (0, 1)))
    assert answer["verdict"] in ("healthy", "ill", "undecided")
    alone = json.loads(run(["diagnose", name, *words, "--json"], capsys, (0, 1)))
    assert alone["findings"] is not None
    return rows


@pytest.mark.parametrize("kind", TEXT)
def test_texts_in_every_door(kind: str, here: Path, models: Models, capsys: pytest.CaptureFixture[str]) -> None:
    rows = every_door(models.text, TEXT[kind](here), capsys)
    if kind != "conversations":
        assert [row["source"] for row in rows] == [source for source, _ in ROWS]
    assert len(rows) == len(ROWS)


@pytest.fixture(scope="module")
def of_features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose features are as wide as those of the published layouts."""
    folder = tmp_path_factory.mktemp("features")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = npy(folder)
        options = [f"--data.train.{name}={value}" for name, value in words.items()]
        assert main(["train", "--name", "x", *TINY.split(), *options, "--data.vocabulary", "40"]) == 0
    return folder / "runs" / "x"


@pytest.mark.parametrize("layout", FEATURES)
def test_features_in_every_door(layout: str, here: Path, of_features: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = every_door(of_features, FEATURES[layout](here), capsys)
    assert len(rows) == len(TEXTS)


def test_a_set_by_its_name(here: Path, models: Models, capsys: pytest.CaptureFixture[str]) -> None:
    rows = every_door(models.text, ("dates", []), capsys)
    assert len(rows) > 20 and rows[0]["source"]


NOT_HERE = {  # words, and what is said
    "a column of lines": ("generate {text} lines.txt --source question", "names a column, and lines.txt has none"),
    "a column of conversations": ("evaluate {text} talk.json --target x", "names a column, and talk.json has none"),
    "lines to measure": ("evaluate {text} lines.txt", "lines.txt"),
    "a column that is not there": ("trace {text} set.tsv --id 1 --source no", "no column 'no'"),
    "features beside lines": ("generate {text} lines.txt --features features", "goes with a manifest"),
    "matrices for a model of text": ("generate {text} features/clip0.npy", "features"),
    "text for a model of features": ("generate {features} lines.txt", "features"),
    "no such task": ("evaluate {text} set.tsv --task none", "the model has no such task"),
}


@pytest.mark.parametrize("kind", NOT_HERE)
def test_what_cannot_be_is_one_line(kind: str, refused: Callable[..., str], here: Path) -> None:
    delimited(here, "set.tsv")
    conversations(here)
    (here / "lines.txt").write_text("ba do\nki\n")
    words, told = NOT_HERE[kind]
    assert told in refused(words, begun=True)


def test_serve_reads_what_generate_reads(here: Path, models: Models, capsys: pytest.CaptureFixture[str]) -> None:
    testing = pytest.importorskip("fastapi.testclient")
    from sourcewise.serving.app import create_app

    delimited(here, "set.tsv")
    rows = [
        json.loads(line)
        for line in run(["generate", str(models.text), "set.tsv", *SEARCH, "--json"], capsys).splitlines()
    ]
    asked = {"sources": [source for source, _ in ROWS], "beams": 1, "max_new_tokens": 6}
    with testing.TestClient(create_app(sourcewise.load(models.text))) as client:
        assert client.post("/generate", json=asked).json()["outputs"] == [row["output"] for row in rows]
    row = json.loads(run(["generate", str(models.features), "features/clip1.npy", *SEARCH, "--json"], capsys))
    with testing.TestClient(create_app(sourcewise.load(models.features))) as client:
        found = client.post(
            "/generate?beams=1&max_new_tokens=6",
            content=(here / "features/clip1.npy").read_bytes(),
            headers={"Content-Type": "application/octet-stream"},
        )
    assert found.json()["outputs"] == [row["output"]]
    assert np.load(here / "features/clip1.npy").shape[1] == 4
