"""Windows of files: each source once, in order, and digests that change with what they are read from."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from sourcewise.config import DataConfig
from sourcewise.data import windows as module
from sourcewise.data.request import SourceRequest
from sourcewise.data.windows import Window, files_of, windows
from sourcewise.errors import RequestError
from tests.commands import write_features

TEXTS = ["ba do", "ki", "", "lu me", "no"]
REQUEST = SourceRequest(DataConfig())


@pytest.fixture(autouse=True)
def of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 2)


def parquet(path: Path, texts: list[str]) -> Path:
    pytest.importorskip("pyarrow")
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"source": texts}), path)
    return path


def sources(found: list[Window]) -> list[str]:
    return [example.source for window in found for example in window.read()]


def numbers(found: list[Window]) -> list[tuple[int, int, int]]:
    return [(window.number, window.before, window.size) for window in found]


def test_lines_of_a_file_and_of_a_stream(tmp_path: Path) -> None:
    data = "\n".join(TEXTS).encode()
    (tmp_path / "a.txt").write_bytes(data)
    of_file = list(windows(str(tmp_path / "a.txt"), REQUEST))
    of_stream = list(windows("-", REQUEST, io.BytesIO(data)))
    assert numbers(of_file) == numbers(of_stream) == [(0, 0, 2), (1, 2, 2), (2, 4, 1)]
    assert sources(of_file) == sources(of_stream) == TEXTS
    assert [w.digest() for w in of_file] == [w.digest() for w in of_stream]
    assert [e.id for w in of_file for e in w.read()] == ["1", "2", "3", "4", "5"]
    assert of_file[1].read()[1].where == f"{tmp_path / 'a.txt'}:4"


def test_lines_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\r".join(TEXTS), encoding="utf-16")
    found = list(windows(str(tmp_path / "a.txt"), REQUEST))
    assert numbers(found) == [(0, 0, 2), (1, 2, 2), (2, 4, 1)] and sources(found) == TEXTS


def test_a_pattern_names_files_in_order(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.txt").write_text(f"{name} 1\n{name} 2\n{name} 3\n")
    found = list(windows(str(tmp_path / "*.txt"), REQUEST))
    assert sources(found) == ["a 1", "a 2", "a 3", "b 1", "b 2", "b 3"]
    assert numbers(found) == [(0, 0, 2), (1, 2, 1), (2, 3, 2), (3, 5, 1)]
    with pytest.raises(RequestError, match=r"\*.tsv: no file has such a name"):
        files_of(str(tmp_path / "*.tsv"))
    (tmp_path / ".hidden.txt").write_text("x\n")
    assert files_of(str(tmp_path / "*.txt")) == [str(tmp_path / f"{name}.txt") for name in "ab"]
    (tmp_path / "what?.txt").write_text("x\n")
    assert files_of(str(tmp_path / "what?.txt")) == [str(tmp_path / "what?.txt")]


def test_parquet_is_read_only_where_a_window_is(tmp_path: Path) -> None:
    for name in ("1", "2"):
        parquet(tmp_path / f"{name}.parquet", [f"{name} {text}" for text in TEXTS])
    found = list(windows(str(tmp_path / "*.parquet"), REQUEST))
    assert numbers(found) == [(0, 0, 2), (1, 2, 2), (2, 4, 1), (3, 5, 2), (4, 7, 2), (5, 9, 1)]
    assert sources(found) == [f"{name} {text}" for name in ("1", "2") for text in TEXTS]
    lazy = list(windows(str(tmp_path / "*.parquet"), REQUEST))
    (tmp_path / "1.parquet").unlink()
    assert [e.source for e in lazy[3].read()] == ["2 ba do", "2 ki"]


def test_features_are_read_when_they_are_used(tmp_path: Path) -> None:
    write_features(tmp_path, lengths=(6, 8, 5))
    (found, last) = windows(str(tmp_path / "m.tsv"), SourceRequest(DataConfig(), features=str(tmp_path / "features")))
    assert [found.read().features(i).shape[0] for i in range(2)] == [6, 8]
    assert last.read().features(0).shape[0] == 5 and last.digest() != found.digest()


def test_digests_are_of_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(TEXTS) + "\n")
    (tmp_path / "a.jsonl").write_text("".join(f'{{"source": "{text}"}}\n' for text in TEXTS))
    parquet(tmp_path / "a.parquet", TEXTS)
    before = {path.name: [w.digest() for w in windows(str(path), REQUEST)] for path in tmp_path.iterdir()}
    assert all(len(set(each)) == 3 for each in before.values())
    (tmp_path / "a.txt").write_text("\n".join([*TEXTS[:3], "other", "no"]) + "\n")
    (tmp_path / "a.jsonl").write_text("".join(f'{{"source": "{text}!"}}\n' for text in TEXTS))
    parquet(tmp_path / "a.parquet", [*TEXTS[:4], "nono"])
    after = {path.name: [w.digest() for w in windows(str(path), REQUEST)] for path in tmp_path.iterdir()}
    same = {name: [a == b for a, b in zip(before[name], after[name], strict=True)] for name in before}
    assert same == {"a.txt": [True, False, True], "a.jsonl": [False] * 3, "a.parquet": [False] * 3}


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_file_without_sources_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(RequestError, match="no sources"):
        list(windows(str(tmp_path / name), REQUEST))
