"""The rows of embeddings that a network reads source tokens with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sourcewise.data.batches import Batch
from sourcewise.diagnosis.borrowing import borrowed
from sourcewise.model.protocol import Network

SAME = 1e-6  # relative distance of rows that are equal


@dataclass(frozen=True, slots=True)
class Alike:
    """Of some ids: those whose row is zero, and groups of ids that share one row."""

    ids: int
    zero: list[int]
    equal: list[list[int]]

    @property
    def told_apart(self) -> float:
        """The share of ids that are."""
        lost = len(self.zero) + sum(map(len, self.equal))
        return 1 - lost / max(1, self.ids)


@torch.no_grad()
def source_table(network: Network, batch: Batch) -> Tensor | None:
    """The rows (ids, width) that source tokens are looked up in; None where none is seen to be used."""
    found: list[Tensor] = []
    tokens = batch.source.tokens
    assert isinstance(network, nn.Module)
    if tokens is None:
        return None

    def seen(module: nn.Module, given: tuple[object, ...], _: object) -> None:
        ids = given[0] if given else None
        if not isinstance(module, nn.Embedding) or not isinstance(ids, Tensor) or ids.shape != tokens.shape:
            return
        if bool((ids.cpu() == tokens.cpu()).all()):
            found.append(module.weight)

    tables = [module for module in network.modules() if isinstance(module, nn.Embedding)]
    hooks = [module.register_forward_hook(seen) for module in tables]
    try:
        with borrowed(network):
            network.encode(batch.to(network.device).source)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:  # looked up without a call of its module: the one that is as wide as the vocabulary
        found = [each.weight for each in tables if each.num_embeddings == network.vocabulary]
    return found[0] if found else None


def alike(table: Tensor, ids: Sequence[int]) -> Alike:
    """Which rows of these ids are zero or equal."""
    rows = table.detach()[torch.tensor(list(ids), device=table.device)].float().cpu()
    sizes = rows.norm(dim=1)
    zero = [i for i, size in zip(ids, sizes.tolist(), strict=True) if size <= SAME * float(sizes.max())]
    grid = torch.round(rows / (SAME * float(sizes.max()) or 1.0))
    groups: dict[bytes, list[int]] = {}
    for i, row in zip(ids, grid.numpy(), strict=True):
        groups.setdefault(row.tobytes(), []).append(i)
    equal = [group for group in groups.values() if len(group) > 1 and group[0] not in set(zero)]
    return Alike(len(ids), zero, equal)
