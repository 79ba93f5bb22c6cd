"""Whether a loop's modules put the targets of a batch into another order than its sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sourcewise.errors import RequestError
from sourcewise.integrations.loop.batches import Named
from sourcewise.integrations.loop.replay import replay_of
from sourcewise.integrations.loop.understood import labels_of, source_of
from sourcewise.integrations.loop.watching import Watching

BEGINS = 3  # places of a target, at which its labels may begin
TRIED, FEWEST = 4, 3  # sources that are exchanged; rows that have other places


def order_of(labels: Tensor, counts: Tensor, named: Named) -> tuple[str, list[int]] | None:
    """The tensor of ids (batch, time) that has all rows of labels (batch, time) in another order, and which each is.

    None where there is none, or rows lie in their places.
    """
    rows = [row[real].tolist() for row, real in zip(labels.cpu(), counts.cpu(), strict=True)]
    for path, tensor in named.items():
        if tensor.ndim != 2 or tensor.is_floating_point() or tensor.dtype == torch.bool or len(tensor) != len(rows):
            continue
        table = tensor.cpu().tolist()
        for begin in range(BEGINS):
            left = list(range(len(table)))
            order: list[int] = []
            for i, row in enumerate(rows):
                fits = [j for j in left if row and table[j][begin : begin + len(row)] == row]
                if not fits:
                    break
                order.append(i if i in fits else fits[0])
                left.remove(order[-1])
            if len(order) == len(rows) and sum(i != j for i, j in enumerate(order)) >= FEWEST:
                return path, order
    return None


@torch.no_grad()
def reordered(seen: Watching, named: Named, pad: int | None, model: nn.Module) -> str:
    """In words, where labels are the rows of a batch in another order, and the sources behind them are not; "" else.

    Call it within a look: the modules are called again.
    """
    known, device = labels_of(seen.saying), next(p.device for p in model.parameters())
    if known is None or known[3] or known[1].ndim != 2:
        return ""
    found = order_of(known[1], known[2], named)
    source = source_of(
        {path: each for path, each in named.items() if found is None or path != found[0]}, None, seen.calls
    )
    if found is None or source is None:
        return ""
    path, order = found
    here = {name: each.to(device) for name, each in named.items()}
    table, size = here[source.path], len(order)
    if len(table) != size:
        return ""
    try:
        replay = replay_of(seen.calls, seen.saying, here, pad, size)
        crossed = _crossed(
            lambda other: replay.outputs({**here, source.path: other}, known[1].shape[1])[0], table, order
        )
    except RequestError:
        return ""
    moved = sum(i != j for i, j in enumerate(order))
    return (
        f"the labels are the rows of {path} in another order ({moved} of {size} have another place), and the sources "
        f"({source.path}) are read in the order of the batch: outputs are held to targets of other examples"
        if crossed
        else ""
    )


def _crossed(outputs: Callable[[Tensor], Tensor], table: Tensor, order: Sequence[int]) -> bool:
    """Whether a row of sources moves the output at its own place, and not where its label has gone."""
    usual, tried = outputs(table), 0
    for place in [j for i, j in enumerate(order) if i != j][:TRIED]:
        other = table.clone()
        other[place] = table[(place + 1) % len(table)]
        if torch.equal(other, table):
            continue
        moved = (outputs(other) - usual).abs().flatten(1).amax(1) > 0
        if not bool(moved[place]) or bool(moved[order.index(place)]):
            return False
        tried += 1
    return tried > 1
