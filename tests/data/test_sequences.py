from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sourcewise.data.sequences import Changed, Coded, Lazy, Picked, Same, at
from sourcewise.data.stored.columns import Column, ColumnWriter

CELLS = st.one_of(st.text(), st.none(), st.integers(-9, 9), st.lists(st.integers(0, 3), max_size=2))


@given(cells=st.lists(CELLS, min_size=1, max_size=12), data=st.data())
def test_cells_on_disk_at_places(tmp_path_factory: pytest.TempPathFactory, cells: list[object], data: st.DataObject):
    writer = ColumnWriter(tmp_path_factory.mktemp("cells") / "a")
    writer.add(cells)
    column = writer.done()
    places = data.draw(st.lists(st.integers(-len(cells), len(cells) - 1), max_size=9))
    assert at(column, places) == [cells[place] for place in places]
    assert list(column) == cells and column[:] == cells
    with pytest.raises(IndexError):
        at(column, [len(cells)])


@given(texts=st.lists(st.text(st.characters(codec=None)), max_size=9))
def test_any_characters_come_back(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    """Half of a surrogate pair among them."""
    path = tmp_path_factory.mktemp("texts") / "a"
    writer = ColumnWriter(path)
    writer.add(texts)
    writer.done()
    assert list(Column(path)) == texts


def test_places_of_sequences_made_on_access() -> None:
    letters = ["a", "b", "c", "d"]
    places = [3, 0, 0]
    assert at(letters, places) == ["d", "a", "a"]
    assert at(Changed(letters, str.upper), places) == ["D", "A", "A"]
    assert at(Picked(letters, np.array([0, 1, 3, 3])), places) == ["d", "a", "a"]
    assert at(Changed(Picked(Changed(letters, str.upper), np.array([1, 2])), str.lower), [1, 0]) == ["c", "b"]
    assert at(Lazy(lambda i: i * i, 4), places) == [9, 0, 0]
    assert at(Same("x", 4), places) == ["x"] * 3
    assert at(Coded(np.array([0, 1, 0, 1]), ["u", "v"]), places) == ["v", "u", "u"]
