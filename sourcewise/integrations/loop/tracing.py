"""What a loop's modules read for each target token, without attention: other ids at one source position at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sourcewise.data.batches import IGNORED
from sourcewise.integrations.collated import LABELS, MASK, TEXT, VECTORS
from sourcewise.integrations.loop.batches import Named, exchanged
from sourcewise.integrations.loop.evaluating import Reader

TRIED = 3  # other ids, or vectors, at each position


@dataclass(frozen=True)
class ReadBy:
    """What an example's target tokens were read from.

    `nats` (target tokens, source positions) says how many nats of a token each position is worth: how much more it
    costs, on average, with another id there. `source` and `target` are ids; of features `source` counts the frames.
    """

    source: list[int]
    target: list[int]
    nats: Tensor

    @property
    def most(self) -> list[int]:
        """For each target token the source position that it is read from most."""
        return self.nats.argmax(1).tolist()  # type: ignore[no-any-return]

    def __str__(self) -> str:
        """A line a target token: its id, its position in the source, the id there, and what that is worth."""
        lines = []
        for token, place, row in zip(self.target, self.most, self.nats, strict=True):
            lines.append(f"{token} read from {self.source[place]} at {place}: {float(row[place]):.2f} nats")
        return "\n".join(lines)


@torch.no_grad()
def traced(reader: Reader, batch: Any, named: Named) -> list[ReadBy]:
    """What each example of a batch was read from, with the true tokens before each.

    Raises RequestError where it is not known how a batch is read.
    """
    known = reader.understood
    collation = known.collation(named)
    assert known.source is not None
    path, table = known.source.path, collation[TEXT] if TEXT in collation else collation[VECTORS]
    real, labels = collation[MASK].bool().cpu(), collation[LABELS]
    usual = reader.nats(batch, named, collation).cpu()
    worth = torch.zeros(*usual.shape, table.shape[1])
    for place in range(int(real.sum(1).max())):
        for other in _others(table, real, place):
            there = real[:, place].to(table.device)
            changed = table.clone()
            changed[there, place] = other[there]

            def change(name: str, each: Tensor, changed: Tensor = changed) -> Tensor:
                if name != path:
                    return each
                turned = changed.transpose(0, 1) if known.source_turned else changed
                return turned.reshape(each.shape)

            tensors = {name: change(name, each) for name, each in named.items()}
            found = reader.nats(exchanged(batch, change), tensors, collation).cpu()
            worth[:, :, place] += (found - usual) / TRIED
    counts = (labels != IGNORED).cpu()
    return [
        ReadBy(
            table[i][real[i]].tolist() if TEXT in collation else list(range(int(real[i].sum()))),
            labels[i].cpu()[counts[i]].tolist(),
            worth[i][counts[i]][:, real[i]],
        )
        for i in range(len(labels))
    ]


def _others(table: Tensor, real: Tensor, place: int) -> list[Tensor]:
    """What else may stand at a position of each row (rows, …): ids that the batch has, or its vectors."""
    kept = table[real.to(table.device)]
    if table.ndim > 2:
        steps = [len(kept) * (k + 1) // (TRIED + 1) for k in range(TRIED)]
        return [kept[step].expand_as(table[:, place]) for step in steps]
    known = kept.unique()
    at = torch.searchsorted(known, table[:, place].contiguous()).clamp(max=len(known) - 1)
    return [known[(at + 1 + k * max(1, len(known) // (TRIED + 1))) % len(known)] for k in range(TRIED)]
