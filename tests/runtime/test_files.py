"""Files that are there whole or not at all."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from sourcewise.errors import RequestError
from sourcewise.runtime.files import write_atomically, writing


def test_pieces_appear_together_when_all_are_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.txt"
    with writing(path) as write:
        write("one\n")
        write(b"two\n")
        assert not path.exists()
    assert path.read_text() == "one\ntwo\n"
    assert [p.name for p in path.parent.iterdir()] == ["out.txt"]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    write_atomically(path, "before")
    with pytest.raises(KeyboardInterrupt), writing(path) as write:
        write("half")
        raise KeyboardInterrupt
    assert path.read_text() == "before" and [p.name for p in tmp_path.iterdir()] == ["out.txt"]


def test_two_threads_may_write_one_path(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    both = threading.Barrier(2, timeout=30)
    failed: list[BaseException] = []

    def write(letter: str) -> None:
        try:
            for _ in range(20):
                with writing(path) as piece:
                    piece(letter * 1000)
                    both.wait()
                    piece(letter * 1000)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert path.read_text() in ("a" * 2000, "b" * 2000)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_failure_leaves_no_folder_made_for_it(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="later"), writing(tmp_path / "a" / "b" / "out.txt"):
        raise RequestError("later")
    assert not any(tmp_path.iterdir())


def test_a_full_disk_is_told() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(RequestError, match="/dev/full: cannot be written"), writing(Path("/dev/full")) as write:
        write("x" * 100)
