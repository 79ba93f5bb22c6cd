"""What a loop's own generation says, beside the network that is trained: words never said, and other first words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from sourcewise.data.batches import IGNORED
from sourcewise.diagnosis.asked import Said

EVEN = math.log(2)  # nats of a token that is as likely as all others together


@torch.no_grad()
def said_beside(tables: Iterable[tuple[Tensor, Tensor]], outputs: Sequence[Sequence[Any]]) -> Said | None:
    """The outputs of each batch, as ids, beside its references; None where they are texts, or some are missing.

    Of each batch `tables` has log-probabilities (batch, time, vocabulary) and labels (batch, time).
    """
    there: Counter[int] = Counter()
    known: Counter[int] = Counter()
    said: Counter[int] = Counter()
    firsts: list[tuple[Tensor, Tensor]] = []  # of each batch: log-probabilities of the first token, (batch, ids); ids
    begins: set[int] = set()
    for (logs, labels), given in zip(tables, outputs, strict=True):
        ids = [_ids(each) for each in given]
        if any(each is None for each in ids) or len(ids) != len(labels):
            return None
        counts = labels != IGNORED
        nats = -logs.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        there.update(labels[counts].tolist())
        known.update(labels[counts & (nats < EVEN)].tolist())
        said.update(i for each in ids for i in set(each or ()))
        begins.update(labels[:, 0].tolist())
        begun = [[*(each or []), -1, -1][:2] for each in ids]
        firsts.append((logs[:, 0].cpu(), torch.tensor(begun)))
    tokens = [(i, count, known[i], said[i]) for i, count in there.items()]
    return Said(tokens, *_first(firsts, begins)) if tokens else None


def _first(firsts: Sequence[tuple[Tensor, Tensor]], begins: set[int]) -> tuple[float, float, int, int]:
    """Nats of the first tokens, of drawn ones, how many are the likeliest, and of how many; without a start token that
    all outputs repeat.
    """
    logs, ids = torch.cat([a for a, _ in firsts]), torch.cat([b for _, b in firsts])
    start = int(ids[0, 0])
    chosen = ids[:, 1] if bool((ids[:, 0] == start).all()) and start not in begins else ids[:, 0]
    real = (chosen >= 0) & (chosen < logs.shape[1])
    if not bool(real.any()):
        return math.nan, math.nan, 0, 0
    logs, chosen = logs[real], chosen[real]
    nats = float(-logs.gather(1, chosen[:, None]).mean())
    drawn = float(-(logs.exp() * logs.clamp(min=-50)).sum(1).mean())
    return nats, drawn, int((logs.argmax(1) == chosen).sum()), len(chosen)


def _ids(output: Any) -> list[int] | None:
    if isinstance(output, Tensor):
        output = output.tolist()
    if not isinstance(output, (list, tuple)) or not all(isinstance(i, int) for i in output):
        return None
    return list(output)
