"""Layouts: what they say of a rectangle, and how examples are packed, chosen and joined."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from sourcewise.data.layout import Layout


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    width = draw(st.integers(1, 9))
    lengths = np.array(draw(st.lists(st.integers(0, width), min_size=1, max_size=6)), dtype=np.int64)
    begins = np.array([draw(st.integers(0, width - n)) for n in lengths.tolist()], dtype=np.int64)
    return Layout(lengths, width, begins)


def rectangle(layout: Layout) -> torch.Tensor:
    """Numbers from 1 on where examples are, 0 elsewhere: (batch, width)."""
    mask = torch.from_numpy(layout.mask)
    return torch.zeros(mask.shape, dtype=torch.long).masked_scatter_(mask, torch.arange(1, layout.rows + 1))


@given(layouts())
def test_a_layout_tells_of_its_rectangle(layout: Layout) -> None:
    mask, on = layout.mask, layout.on("cpu")
    assert torch.equal(on.mask, torch.from_numpy(mask)) and layout.on("cpu") is on
    assert (mask.sum(1) == layout.lengths).all() and layout.rows == mask.sum()
    assert layout.longest == max(layout.lengths) and layout.full == bool(mask.all())
    assert layout.starts.tolist() == [0, *np.cumsum(layout.lengths)]
    for row, length, begin, places in zip(mask, layout.lengths, layout.begins, on.positions.tolist(), strict=True):
        assert [p for p, real in zip(places, row, strict=True) if real] == list(range(length))
        assert places[:begin] == [0] * begin and max(places) <= max(length - 1, 0)


@given(layouts())
def test_what_is_packed_is_padded_as_it_was(layout: Layout) -> None:
    table = rectangle(layout)
    packed = layout.compact()
    assert packed.packed and not packed.rectangle().packed and layout.pack(table) is table
    rows = packed.pack(table)
    assert rows.tolist() == list(range(1, layout.rows + 1))
    assert torch.equal(packed.pad(rows), table) and layout.pad(table) is table


@given(layouts(), st.data())
def test_chosen_examples_keep_their_places(layout: Layout, data: st.DataObject) -> None:
    rows = np.array(data.draw(st.lists(st.integers(0, len(layout) - 1), max_size=5)), dtype=np.int64)
    chosen, columns = layout.select(rows)
    assert torch.equal(rectangle(layout)[rows][:, columns] > 0, torch.from_numpy(chosen.mask))
    if chosen.lengths.min(initial=1) and len(rows):
        assert chosen.mask.any(0)[[0, -1]].all()  # as narrow as it can be


@given(layouts(), layouts())
def test_joined_examples_stand_at_the_edge_that_is_said(one: Layout, other: Layout) -> None:
    width = max(one.width, other.width)
    for left in (False, True):
        joined = one.join(other, on_the_left=left)
        grown = [np.pad(e.mask, ((0, 0), (width - e.width, 0) if left else (0, width - e.width))) for e in (one, other)]
        assert (joined.mask == np.concatenate(grown)).all()


def test_an_example_may_be_cut() -> None:
    cut = Layout([3, 1, 5], 6, np.array([2, 0, 1])).cut(2)
    assert cut.mask.astype(int).tolist() == [[0, 0, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0]]
