"""Shards of texts and sets of the hub as streams: every row once a pass, and exact resumes."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

import sourcewise
from sourcewise.config import Recipe
from sourcewise.data import streams
from sourcewise.data.hub_streams import HubStream
from sourcewise.data.readers.pairs import read_pairs
from sourcewise.errors import RequestError
from sourcewise.training.run import Run
from tests.training.recipes import pairs_file, recipe
from tests.training.stopping import Stops
from tests.training.test_at_size import weights
from tests.training.test_resuming import exactly


def shards(folder: Path, size: int, each: int) -> Path:
    """The toy language in shards of a WebDataset, a text file for each side."""
    folder.mkdir()
    rows = [line.split("\t") for line in pairs_file(folder, "rows.tsv", size, 7).read_text().splitlines()[1:]]
    for number, first in enumerate(range(0, size, each)):
        with tarfile.open(folder / f"part-{number:02}.tar", "w") as file:
            for i, row in enumerate(rows[first : first + each], first):
                for ending, text in zip(("src.txt", "tgt.txt"), row, strict=True):
                    member = tarfile.TarInfo(f"{i:05}.{ending}")
                    member.size = len(text.encode())
                    file.addfile(member, io.BytesIO(text.encode()))
    return folder


def hub_folder(folder: Path, size: int, said: int | None) -> Path:
    """The toy language in three files, as the hub has them, with a card that says how many rows there are."""
    folder.mkdir()
    rows = [line.split("\t") for line in pairs_file(folder, "rows.tsv", size, 7).read_text().splitlines()[1:]]
    (folder / "rows.tsv").unlink()
    for number in range(3):
        lines = [json.dumps({"source": a, "target": b}) + "\n" for a, b in rows[number::3]]
        (folder / f"train-{number}.jsonl").write_text("".join(lines))
    if said is not None:
        names = "".join(f"  - name: {side}\n    dtype: string\n" for side in ("source", "target"))
        card = f"  features:\n{names}  splits:\n  - name: train\n    num_bytes: 1\n    num_examples: {said}\n"
        (folder / "README.md").write_text(f"---\ndataset_info:\n{card}---\n")
    return folder


def test_shards_of_texts_are_a_stream(tmp_path: Path) -> None:
    stream = streams.Stream(shards(tmp_path / "shards", 230, 50), 100, source="src", target="tgt")
    assert (stream.rows, stream.per_pass) == (230, 3)
    passes = [[e.id for n in range(3) for e in stream.window(n + 3 * once)] for once in range(2)]
    assert sorted(passes[0]) == sorted(passes[1]) == [f"{i:05}" for i in range(230)] and passes[0] != passes[1]
    first, rows = stream.window(1)[7], (tmp_path / "shards" / "rows.tsv").read_text().splitlines()
    assert (first.source, first.target) == tuple(rows[int(first.id) + 1].split("\t"))
    assert first.where == f"{tmp_path}/shards/part-{int(first.id) // 50:02}.tar:{int(first.id) % 50 + 1}"
    range_of = tmp_path / "shards" / "part-{00..01}.tar"
    assert streams.Stream(range_of, 100, source="src", target="tgt").rows == 100
    alike = streams.Stream(range_of, 1000, source="src", target="tgt").window(0)
    assert {e.id: e.source for e in alike} == {e.id: e.source for e in read_pairs(range_of, source="src", target="tgt")}


def test_a_set_of_the_hub_is_a_stream(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    stream = HubStream(str(hub_folder(tmp_path / "set", 100, 100)), "train", None, 30)
    assert (stream.rows, stream.per_pass) == (100, 4)
    passes = [[e.source + e.target for n in range(4) for e in stream.window(n + 4 * once)] for once in range(3)]
    assert len({tuple(sorted(each)) for each in passes}) == 1 and len({tuple(each) for each in passes}) > 1
    again = HubStream(stream.name[len("hub:") :], "train", None, 30)
    assert [[e.source for e in again.window(n)] for n in (7, 2, 9)] == [
        [e.source for e in stream.window(n)] for n in (7, 2, 9)
    ]
    assert [len(again.window(n)) for n in (2, 3)] == [30, 10] and again.window(1)[0].id == "31"


@pytest.mark.parametrize(
    ("said", "limit", "problem"),
    [
        (None, None, "does not say how many examples 'train' has, as a stream needs; set limit to that number"),
        (130, None, "ends after 100 of 130 examples; set limit to that number"),
        (None, 101, "ends after 100 of 101 examples"),
    ],
)
def test_a_set_of_the_hub_says_how_long_it_is(
    said: int | None, limit: int | None, problem: str, tmp_path: Path
) -> None:
    pytest.importorskip("datasets")
    folder = hub_folder(tmp_path / "set", 100, said)
    with pytest.raises(RequestError, match=problem):
        list(map(HubStream(str(folder), "train", None, 40, limit).window, range(3)))


@pytest.mark.parametrize("kind", ["shards", "hub"])
def test_a_stopped_run_of_any_stream_goes_on_exactly(tmp_path: Path, kind: str) -> None:
    if kind == "hub":
        pytest.importorskip("datasets")
        train = {"pairs": f"hub:{hub_folder(tmp_path / 'set', 300, 300)}", "stream": True}
    else:
        train = {"pairs": str(shards(tmp_path / "set", 300, 70)), "stream": True, "source": "src", "target": "tgt"}

    def planned(name: str) -> Recipe:
        changes: dict[str, Any] = {"train__save_every": 3, "train__evaluate_every": 8, "train__steps": 16}
        return recipe(tmp_path, name=name, data__train=train, data__stream_examples=64, **changes)

    whole, run = sourcewise.train(planned("whole")), Run(tmp_path / "runs" / "stopped")
    with pytest.raises(MemoryError):
        sourcewise.train(planned("stopped"), listeners=[Stops(7)])
    sourcewise.train(run.folder, resume=True)
    assert weights(run) == weights(whole) and exactly(run) == exactly(whole)
