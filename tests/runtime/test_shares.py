"""Pieces of an output: whole or not there, never those of another request, joined by whoever comes last."""

from __future__ import annotations

from pathlib import Path

import pytest

from sourcewise.errors import RequestError
from sourcewise.runtime.shares import Pieces, Share


def pieces(output: Path, identity: str = "model", count: int = 3, whole: bool = True) -> Pieces:
    made = Pieces(output, ".txt", identity, whole)
    made.names = [made.name(number, f"window {number}") for number in range(count)]
    return made


@pytest.mark.parametrize("text", ["", "3", "3/3", "0/0", "-1/3", "1/3/5", "a/b", "1.0/2"])
def test_a_share_that_is_none(text: str) -> None:
    with pytest.raises(RequestError, match="is I/N, such as 0/3"):
        Share.parse(text)


def test_shares_have_each_piece_once() -> None:
    shares = [Share.parse(f"{i}/3") for i in range(3)]
    assert [[share.has(number) for share in shares].count(True) for number in range(10)] == [1] * 10


def test_pieces_are_joined_when_all_are_there(tmp_path: Path) -> None:
    output = tmp_path / "out.txt"
    made = pieces(output)
    for number in (2, 0, 1):
        assert number in made.missing() and not output.exists()
        made.write(number, f"line {number}\n")
    assert made.missing() == [] and not made.is_joined()
    made.join()
    assert output.read_text() == "line 0\nline 1\nline 2\n"
    assert made.is_joined() and [path.name for path in made.folder.iterdir()] == ["joined.json"]
    assert pieces(output).is_joined() and not pieces(output, "another").is_joined()
    output.write_text("something else\n")
    assert not made.is_joined()


def test_a_piece_of_another_request_is_not_taken(tmp_path: Path) -> None:
    old, new = pieces(tmp_path / "out.txt", "old"), pieces(tmp_path / "out.txt", "new")
    for number in range(3):
        old.write(number, "old\n")
    assert new.missing() == [0, 1, 2]
    for number in range(3):
        new.write(number, "new\n")
    new.join()
    assert (tmp_path / "out.txt").read_text() == "new\n" * 3 and old.missing() == [0, 1, 2]


def test_a_folder_of_pieces_is_of_one_request(tmp_path: Path) -> None:
    made = pieces(tmp_path / "out", whole=False)
    made.check()
    made.write(1, "one\n")
    made.check()
    made.join()
    assert [path.name for path in (tmp_path / "out").iterdir()] == [made.names[1]]
    with pytest.raises(RequestError, match=r"1 of its files, such as 000001-.*, are of another request"):
        pieces(tmp_path / "out", "another", whole=False).check()


def test_who_joins_beside_another_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = pieces(tmp_path / "out.txt"), pieces(tmp_path / "out.txt")
    for number in range(3):
        first.write(number, f"{number}\n")
    opened = Path.open

    def late(path: Path, *words: str, **named: str) -> object:
        if path.name == second.names[1]:
            monkeypatch.setattr(Path, "open", opened)
            first.join()
        return opened(path, *words, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", late)
    second.join()
    assert (tmp_path / "out.txt").read_text() == "0\n1\n2\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.txt", "out.txt.parts"]
