"""Training sets on disk and streams: the same weights as from memory, again without reading, and exact resumes."""

from __future__ import annotations

import contextlib
import resource
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

import sourcewise
from sourcewise.config import Recipe
from sourcewise.data import examples, mixtures, streams
from sourcewise.data.open import open_dataset
from sourcewise.data.stored import encoded as stored
from sourcewise.data.stored import pairs, tokenizer
from sourcewise.data.stored.store import Store
from sourcewise.errors import Notice, RequestError
from sourcewise.training.run import Run
from sourcewise.training.state import load_state
from tests.training.recipes import pairs_file, recipe
from tests.training.stopping import Stops
from tests.training.test_resuming import exactly


def on_disk(folder: Path, name: str, **changes: Any) -> Recipe:
    return recipe(folder, name=name, data__memory_mb=0.0, data__store=str(folder / "store"), **changes)


def weights(run: Run) -> bytes:
    return (run.last / "model.safetensors").read_bytes()


def origin(run: Run) -> list[str]:
    return [line for line in run.state.with_name("origin.json").read_text().splitlines() if "digest" in line]


def mixture(folder: Path) -> list[dict[str, Any]]:
    return [
        {"pairs": str(pairs_file(folder, "one.tsv", 300, 4)), "prefix": "Do: ", "lowercase": True, "name": "one"},
        {"pairs": str(pairs_file(folder, "two.tsv", 100, 5)), "weight": 2.0, "limit": 90, "name": "two"},
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data__max_source": 4, "data__max_target": 3, "train__preflight": True},
        {"train__text_noise": {"drop": 0.2}, "train__token_weights": "inverse_frequency", "train__contrastive": 0.1},
        {"data__unit": "words", "train__resample_below": 0.3, "data__add_tokens": ["<x>"]},
    ],
)
def test_the_same_weights_as_from_memory(tmp_path: Path, changes: dict[str, Any]) -> None:
    memory = sourcewise.train(recipe(tmp_path, name="memory", **changes))
    disk = sourcewise.train(on_disk(tmp_path, "disk", **changes))
    assert weights(disk) == weights(memory)
    assert exactly(disk) == exactly(memory) and origin(disk) == origin(memory)
    assert disk.profile.read_bytes() == memory.profile.read_bytes()
    assert disk.notes.is_file() == memory.notes.is_file() == ("data__max_source" in changes)
    if memory.notes.is_file():
        assert disk.notes.read_text() == memory.notes.read_text()


def test_mixtures_are_the_same_too(tmp_path: Path) -> None:
    changes = {"data__train": mixture(tmp_path), "data__rates": "proportional"}
    memory = sourcewise.train(recipe(tmp_path, name="memory", **changes))
    disk = sourcewise.train(on_disk(tmp_path, "disk", **changes))
    assert weights(disk) == weights(memory) and exactly(disk) == exactly(memory)


def test_bad_rows_are_left_out_of_both(tmp_path: Path) -> None:
    path = pairs_file(tmp_path, "bad.tsv", 200)
    path.write_text(path.read_text() + "ba\t\n\tone\nba\tone\nba do\n")
    changes = {"data__train": {"pairs": str(path)}, "data__skip_bad": True, "train__steps": 4}
    memory = sourcewise.train(recipe(tmp_path, name="memory", **changes))
    disk = sourcewise.train(on_disk(tmp_path, "disk", **changes))
    assert weights(disk) == weights(memory)
    assert disk.notes.read_text() == memory.notes.read_text() and "left out" in disk.notes.read_text()
    with pytest.raises(RequestError, match=r"bad\.tsv:202: the target is empty.*3 of 204 rows are bad"):
        sourcewise.train(on_disk(tmp_path, "strict", **{**changes, "data__skip_bad": False}))


def test_what_is_kept_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = on_disk(tmp_path, "first")
    with pytest.warns(Notice, match=r"pairs\.tsv: 1,500 pairs are kept on disk: \d+ MB of texts in .*store"):
        first = sourcewise.train(planned)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("made again")

    for module, name in ((pairs, "read_columns"), (stored, "Encoded"), (tokenizer.Tokenizer, "train")):
        monkeypatch.setattr(module, name, never)
    again = sourcewise.train(planned.model_copy(update={"name": "again"}))
    assert weights(again) == weights(first) and exactly(again) == exactly(first)


def test_another_tokenizer_or_limit_makes_other_ids(tmp_path: Path) -> None:
    planned = on_disk(tmp_path, "cut", train__steps=1)
    short = planned.model_copy(update={"name": "short", "data": planned.data.limited(max_source=3)})
    assert origin(sourcewise.train(planned)) != origin(sourcewise.train(short))
    (folder,) = (tmp_path / "store").glob("pairs-*")
    assert len(list(folder.glob("ids-*"))) == 2


def test_processes_tokenise_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "BLOCK", 100)
    one = sourcewise.train(on_disk(tmp_path, "one", train__steps=2))
    monkeypatch.setattr(stored, "worker_count", lambda _: 2)
    two = sourcewise.train(
        recipe(tmp_path, name="two", train__steps=2, data__memory_mb=0.0, data__store=str(tmp_path / "other"))
    )
    assert weights(two) == weights(one) and origin(two) == origin(one)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_stopped_run_goes_on_exactly(tmp_path: Path, streamed: bool) -> None:
    def planned(name: str) -> Recipe:
        changes: dict[str, Any] = {"train__save_every": 3, "train__evaluate_every": 8, "train__steps": 40}
        if streamed:
            train = {"pairs": str(parquet(tmp_path, 400)), "stream": True}
            return recipe(tmp_path, name=name, data__train=train, data__stream_examples=90, **changes)
        return on_disk(tmp_path, name, **changes)

    whole = sourcewise.train(planned("whole"))
    run = Run(tmp_path / "runs" / "stopped")
    for stop in (5, 14, 31):
        with pytest.raises(MemoryError):
            sourcewise.train(planned("stopped") if stop == 5 else run.folder, resume=stop > 5, listeners=[Stops(stop)])
    sourcewise.train(run.folder, resume=True)
    assert weights(run) == weights(whole) and exactly(run) == exactly(whole)


def parquet(folder: Path, size: int, name: str = "stream.parquet", **columns: list[Any]) -> Path:
    """The toy language in row groups of 50."""
    rows = [line.split("\t") for line in pairs_file(folder, "rows.tsv", size, 7).read_text().splitlines()[1:]]
    table = {"source": [row[0] for row in rows], "target": [row[1] for row in rows], **columns}
    pyarrow.parquet.write_table(pyarrow.table(table), folder / name, row_group_size=50)
    return folder / name


def test_a_pass_over_a_stream_has_every_row_once_in_another_order(tmp_path: Path) -> None:
    stream = streams.Stream(parquet(tmp_path, 430), 100)
    assert (stream.rows, stream.per_pass) == (430, 5)
    passes = [[e.where for n in range(5) for e in stream.window(n + 5 * once)] for once in range(2)]
    assert sorted(passes[0]) == sorted(passes[1]) == sorted(f"{stream.path}:{i + 1}" for i in range(430))
    assert passes[0] != passes[1]
    first = stream.window(3)[0]
    line = int(first.where.rpartition(":")[2])
    assert first.id == str(line)
    assert first.source == (tmp_path / "rows.tsv").read_text().splitlines()[line].split("\t")[0]


def test_a_folder_of_shards_is_a_stream(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for number in range(3):
        names = [f"{number}/{i}" for i in range(80)]
        parquet(tmp_path, 80, f"shards/{number}.parquet", id=names)
    stream = streams.Stream(tmp_path / "shards", 100, limit=200)
    found = [example.id for n in range(stream.per_pass) for example in stream.window(n)]
    assert sorted(found) == sorted(f"{n}/{i}" for n in range(3) for i in range(80) if n < 2 or i < 40)
    train = {"pairs": "shards", "stream": True, "prefix": "say: "}
    run = sourcewise.train(
        recipe(tmp_path, data__root=str(tmp_path), data__train=train, data__stream_examples=64, train__preflight=True)
    )
    state = load_state(run.state)
    assert state is not None and state["per_pass"] == 4
    passes = (state["epoch"] + state["position"] / state["epoch_batches"]) / 4
    assert run.metrics()[-1]["epoch"] == round(passes, 3) > 0.25


def test_a_stream_tells_bad_rows_of_any_window(tmp_path: Path) -> None:
    rows = [line.split("\t") for line in pairs_file(tmp_path, "rows.tsv", 400, 7).read_text().splitlines()[1:]]
    targets = [None if i == 333 else row[1] for i, row in enumerate(rows)]
    path = parquet(tmp_path, 400, target=targets)
    changes = {"data__train": {"pairs": str(path), "stream": True}, "data__stream_examples": 64}
    with pytest.raises(RequestError, match=r"stream\.parquet:334: the target is empty"):
        sourcewise.train(recipe(tmp_path, train__steps=80, **changes))
    with pytest.warns(Notice, match=r"left out \(skip_bad\): the target is empty \(1 such, the first at .*:334\)"):
        sourcewise.train(recipe(tmp_path, name="b", train__steps=80, data__skip_bad=True, **changes))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"train__steps": None}, r"train\.steps: missing"),
        ({"train__contrastive": 0.1}, r"train\.contrastive"),
        ({"train__resample_below": 0.1}, r"train\.resample_below"),
        (
            {"data__train": {"pairs": "pairs.tsv", "stream": True}},
            "stream reads Parquet, .tar and hub:NAME; without stream a large table",
        ),
        ({"data__train": {"pairs": "no.parquet", "stream": True}}, "no such file"),
        ({"data__train": {"pairs": ".", "stream": True, "source": "english"}}, "no column 'english'"),
    ],
)
def test_what_a_stream_cannot_do_is_said(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    train = {"pairs": str(parquet(tmp_path, 200)), "stream": True}
    options = {"data__train": train, "data__root": str(tmp_path), "data__stream_examples": 64, **changes}
    with pytest.raises(RequestError, match=problem):
        sourcewise.train(recipe(tmp_path, **options))


def test_only_training_sets_are_streamed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stream is for train"):
        recipe(tmp_path, data__valid={"pairs": "x.parquet", "stream": True})
    with pytest.raises(ValueError, match="stream reads pairs: from Parquet"):
        recipe(tmp_path, data__train={"manifest": "x.tsv", "stream": True})


def test_checks_of_a_set_on_disk_say_what_they_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixtures.looked_at, "__defaults__", (200,))
    said = r"pairs\.tsv: checks of the data look at 200 of 1,500 examples, evenly spread"
    with pytest.warns(Notice, match=said):
        sourcewise.preflight(on_disk(tmp_path, "disk"))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        sourcewise.preflight(recipe(tmp_path))
    assert not [each for each in told if "checks of the data" in str(each.message)]


def test_small_files_stay_in_memory(tmp_path: Path) -> None:
    sourcewise.preflight(recipe(tmp_path, data__store=str(tmp_path / "store")))
    assert not (tmp_path / "store").exists()
    path = parquet(tmp_path, 20_000)
    store = Store.of(str(tmp_path / "store"), path.stat().st_size * 2 / 1e6)
    assert path.stat().st_size < store.least and store.takes(path)  # what counts is its size unpacked


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file in the way")
    with pytest.raises(RequestError, match=r"store: cannot be written .*data\.store names another folder"):
        sourcewise.train(on_disk(tmp_path, "disk"))


@contextlib.contextmanager
def no_room() -> Iterator[None]:
    """Within: the system refuses to let a file grow beyond 2 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))
    try:
        with pytest.raises(RequestError, match=r"store.*: cannot be written \(.*\); data\.store names another folder"):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    data = on_disk(tmp_path, "disk").data
    with no_room():
        open_dataset(data.sets("train")[0], data)
    assert not list((tmp_path / "store").iterdir())
    texts = open_dataset(data.sets("train")[0], data)
    known = tokenizer.Tokenizer.train(texts.texts(), 60)
    with no_room():
        mixtures.encode_sets([texts], known, data)
    assert len(mixtures.encode_sets([texts], known, data)) == 1_500


def test_a_stream_tells_of_characters_that_come_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "FIRST_OF_STREAM", 64)
    rows = [line.split("\t") for line in pairs_file(tmp_path, "rows.tsv", 400, 7).read_text().splitlines()[1:]]
    path = parquet(tmp_path, 400, source=[f"{row[0]} ж" if i > 200 else row[0] for i, row in enumerate(rows)])
    changes = {"data__train": {"pairs": str(path), "stream": True, "limit": 400}, "data__stream_examples": 64}
    with pytest.warns(Notice, match=r"\d+ of 64 sources of a window hold what the tokenizer does not know"):
        sourcewise.train(recipe(tmp_path, train__steps=60, **changes))
