"""On which side a loop pads the batches of an evaluation, beside those that it trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sourcewise.data.batches import IGNORED
from sourcewise.diagnosis.answer import Piece
from sourcewise.diagnosis.measures.laid import Laid, Side, on_side, one_side, side_of
from sourcewise.diagnosis.rules import look
from sourcewise.diagnosis.wiring import Wiring
from sourcewise.integrations.collated import LABELS, MASK
from sourcewise.integrations.loop.batches import Named, exchanged
from sourcewise.integrations.loop.evaluating import Reader


def look_at_sides(reader: Reader, trained: Sequence[Named], batches: Sequence[tuple[Any, Named]]) -> Piece:
    """What the rules say where sources of an evaluation are padded on the other side than those of the training."""
    before, now = side_in(reader, trained), side_in(reader, [named for _, named in batches])
    if not before or not now or before == now:
        return Piece((), [])
    batch, named = next(each for each in batches if side_in(reader, [each[1]]))
    laid = Laid("the evaluation", now, before, nats_of(reader, batch, named, before))
    return look(Wiring(laid=laid), codes="WIR033")


def side_in(reader: Reader, batches: Sequence[Named]) -> Side:
    """On which side sources are padded; "" where that is not one, or not known."""
    found = []
    for named in batches:
        try:
            found.append(side_of(reader.understood.collation(named)[MASK].bool()))
        except (IndexError, KeyError, RuntimeError):  # a batch of another shape
            continue
    return one_side(found)


@torch.no_grad()
def nats_of(reader: Reader, batch: Any, named: Named, side: Side) -> tuple[float, float, float] | None:
    """Of a target token, on average: as the rows lie, with sources padded on that side, and how far these are apart."""
    known = reader.understood
    assert known.source is not None
    path, collation = known.source.path, known.collation(named)
    real = collation[MASK].bool()

    def change(name: str, table: Tensor) -> Tensor:
        rows = table.transpose(0, 1) if known.source_turned and table.ndim > 1 else table
        if rows.shape[:2] != real.shape or (name != path and "mask" not in name):
            return table
        moved = on_side(rows, real, side)
        return moved.transpose(0, 1) if known.source_turned else moved

    other = {name: change(name, each) for name, each in named.items()}
    counts = collation[LABELS] != IGNORED
    usual, moved = (
        reader.nats(of, tensors, collation).cpu()[counts]
        for of, tensors in ((batch, named), (exchanged(batch, change), other))
    )
    return float(usual.mean()), float(moved.mean()), float((usual - moved).abs().mean())
