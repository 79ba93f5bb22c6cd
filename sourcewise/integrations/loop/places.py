"""Which places of its sources a loop's network can be moved by at all, asked before it has learned anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sourcewise.data.batches import IGNORED
from sourcewise.diagnosis.observed import Dead
from sourcewise.integrations.collated import MASK, TEXT, VECTORS
from sourcewise.integrations.loop.batches import Named, exchanged
from sourcewise.integrations.loop.evaluating import Reader

PLACES = 8  # of the sources, that are changed one by one
REMEMBERED = 24  # places of a source, over which the state of a fresh recurrent network still tells the first word
FEW = 4  # of the rows of a batch, one has a place that is changed
PARTS = 4  # of each source of frames, exchanged one after the other


def of_single_places(
    reader: Reader, batch: Any, named: Named, labels: Tensor, usual: Tensor, modules: Sequence[nn.Module]
) -> tuple[float | None, Dead | None]:
    """Of the outputs of examples that a single place of the source moves somewhere: the share that it never moves.

    Outputs that no place moves are left out: they stand there for another reason, such as for the start token. None
    where no place moves any. And of words of sources that were exchanged for others: how many moved no output at all,
    and of how many; None where sources are features, or so long that a fresh state forgets their beginning.
    """
    known = reader.understood
    assert known.source is not None
    collation = known.collation(named)
    real, path = collation[MASK].bool(), known.source.path
    held = real & real.roll(1, 0)
    words = collation[TEXT] if TEXT in collation and _remembers(modules, held.shape[1]) else None
    places = held.sum(0).gt(len(held) // (FEW if words is not None else 2)).nonzero()[:, 0]
    places = places[torch.linspace(0, len(places) - 1, min(PLACES, len(places))).long()] if len(places) else places
    unmoved, changes = 0, 0
    found: list[tuple[Tensor, Tensor]] = []  # of each place: which outputs it moves, and which are asked for
    for place in places.tolist():
        axis = int(not known.source_turned)
        changed = named[path].clone()
        changed.select(axis, place).copy_(named[path].select(axis, place).roll(1, 0))
        moved = _moved(reader, batch, named, labels, usual, changed)
        if moved is None:
            return None, None
        reached = (moved & (labels != IGNORED)).any(1)
        rows = held[:, place].to(moved.device) & reached
        if words is not None:
            other = (held[:, place] & (words[:, place] != words[:, place].roll(1, 0))).to(moved.device)
            unmoved, changes = unmoved + int((other & ~reached).sum()), changes + int(other.sum())
        found.append((moved, rows[:, None] & (labels != IGNORED)))
    if not found:
        return None, None
    moved, asked = (torch.stack(each) for each in zip(*found, strict=True))
    asked &= (moved & asked).any((0, 1))
    share = float((asked & ~moved).sum() / asked.sum()) if bool(asked.any()) else None
    return share, Dead(unmoved, changes, "words") if words is not None and share is not None else None


def of_quarters(
    reader: Reader, batch: Any, named: Named, labels: Tensor, usual: Tensor, modules: Sequence[nn.Module]
) -> Dead | None:
    """How many quarters of sources of frames move no output when frames of another source stand there, and of how many.

    What a source ends with and does not change any more is its padding, zeros or not. Of long sources a recurrent
    network is asked for the last quarter only: a fresh state forgets the others. None where sources are not frames, or
    are too short.
    """
    known = reader.understood
    assert known.source is not None
    collation, path = known.collation(named), known.source.path
    if VECTORS not in collation or named[path].ndim != 3:
        return None
    frames = named[path].transpose(0, 1) if known.source_turned else named[path]  # (batch, frames, dims)
    lengths = collation[MASK].sum(1).minimum(_changing(frames))
    if len(frames) < 2 or int(lengths.min()) < PARTS:
        return None
    others = frames.roll(1, 0)
    unmoved, tried = 0, 0
    for part in range(0 if _remembers(modules, frames.shape[1]) else PARTS - 1, PARTS):
        at = torch.arange(frames.shape[1], device=frames.device)[None]
        own = (at >= (lengths * part // PARTS)[:, None]) & (at < (lengths * (part + 1) // PARTS)[:, None])
        mixed = torch.where(own[..., None], _stretched(others, lengths.roll(1, 0), lengths), frames)
        changed = mixed.transpose(0, 1) if known.source_turned else mixed
        moved = _moved(reader, batch, named, labels, usual, changed)
        if moved is None:
            return None
        other = (mixed != frames).flatten(1).any(1).to(moved.device)
        still = other & ~(moved & (labels != IGNORED)).any(1)
        if not bool(still[lengths.to(moved.device) == lengths.max()].all()):
            still = torch.zeros_like(still)  # the longest are read: what others end with is padding that does change
        unmoved, tried = unmoved + int(still.sum()), tried + int(other.sum())
    return Dead(unmoved, tried, "quarters") if tried else None


def _moved(reader: Reader, batch: Any, named: Named, labels: Tensor, usual: Tensor, changed: Tensor) -> Tensor | None:
    """(batch, time) whether other sources move each output; None where the loop made something of just its own."""
    assert reader.understood.source is not None
    path = reader.understood.source.path

    def change(name: str, each: Tensor) -> Tensor:
        return changed if name == path else each

    try:
        tensors = {name: change(name, each) for name, each in named.items()}
        return (reader.table(exchanged(batch, change), tensors, labels) - usual).abs().amax(-1) > 0
    except Exception:  # whatever somebody's code raises: nothing is known then
        return None


def _changing(frames: Tensor) -> Tensor:
    """(batch,) how many frames there are up to the last that differs from the one before it."""
    differs = (frames[:, 1:] != frames[:, :-1]).any(-1)
    count = torch.arange(2, frames.shape[1] + 1, device=frames.device)
    return (differs * count).amax(1).clamp(min=1)


def _stretched(frames: Tensor, lengths: Tensor, wanted: Tensor) -> Tensor:
    """Frames (batch, frames, dims) of these lengths, repeated or left out so that they have the wanted ones."""
    at = torch.arange(frames.shape[1], device=frames.device)[None] * lengths[:, None] // wanted[:, None]
    at = at.clamp(max=frames.shape[1] - 1)
    return frames.gather(1, at[..., None].expand_as(frames))


def _remembers(modules: Sequence[nn.Module], places: int) -> bool:
    """Whether a network that has not learned yet can be moved by each of so many places: states forget."""
    recurrent = (nn.RNNBase, nn.RNNCellBase)
    return places <= REMEMBERED or not any(isinstance(each, recurrent) for m in modules for each in m.modules())
