"""Embeddings of a loop that never learn: which of the ids that a step looks up have no vector of their own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sourcewise.diagnosis.measures.vocabulary import alike
from sourcewise.diagnosis.observed import Table
from sourcewise.integrations.loop.watching import Watching


@torch.no_grad()
def standing_tables(seen: Watching, held: set[int], pad: int | None) -> tuple[Table, ...]:
    """Of each embedding that was called in a step and is frozen, or in none of the optimizers that are known."""
    read: dict[int, tuple[str, nn.Embedding, list[Tensor]]] = {}
    for call in (*seen.calls, *seen.inner):
        ids = call.given[0] if call.given else None
        if isinstance(call.module, nn.Embedding) and isinstance(ids, Tensor) and not ids.is_floating_point():
            weight = call.module.weight
            if not weight.requires_grad or (held and id(weight) not in held):
                read.setdefault(id(weight), (call.name, call.module, []))[2].append(ids.reshape(-1))
    found = []
    for name, module, ids in read.values():
        known = [i for i in torch.cat(ids).unique().tolist() if i not in (pad, module.padding_idx)]
        if known:
            same = alike(module.weight, known)
            found.append(Table(name, len(known), len(same.zero), sum(map(len, same.equal))))
    return tuple(found)
