"""Gradients of a batch cut into shares: the same as of the whole, and the same each time with dropout."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from sourcewise.data.batches import IGNORED, Batch
from sourcewise.lanes import Lanes
from sourcewise.training.gradients import gradients
from sourcewise.training.objective import Objective
from tests.model.networks import network, text_source
from tests.training.test_optimizer import config

LENGTHS = [5, 3, 7, 2, 6]


def part(rows: list[int]) -> Batch:
    source = text_source(LENGTHS)
    assert source.tokens is not None and source.token_lengths is not None
    source.tokens, source.token_lengths = source.tokens[rows], source.token_lengths[rows]
    labels = torch.randint(3, 20, (len(LENGTHS), 6), generator=torch.Generator().manual_seed(1))
    labels[1, 4:] = IGNORED
    return Batch(source, labels[rows], rows)


def found(objective: Objective, shares: list[list[int]], seed: int = 0) -> tuple[list[torch.Tensor], float, int]:
    """Summed gradients, nats and source tokens over the shares, in two lanes."""
    kept = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(seed)
    try:
        parameters = [p for p in objective.parameters() if p.requires_grad]
        lanes = Lanes(torch.device("cpu"))
        parts = list(gradients(objective, parameters, [partial(part, rows) for rows in shares], 28, lanes))
    finally:
        torch.set_num_threads(kept)
    total = [
        torch.stack([torch.zeros_like(p) if g is None else g for g in of]).sum(0)
        for p, *of in zip(parameters, *(p.of for p in parts), strict=True)
    ]
    return total, sum(p.nats for p in parts), sum(p.source_tokens for p in parts)


def test_shares_add_up_to_the_whole() -> None:
    objective = Objective(network(dropout=0.0, attention_dropout=0.0).train(), config())
    whole, cut = found(objective, [[0, 1, 2, 3, 4]]), found(objective, [[3, 1], [0], [4, 2]])
    assert whole[1] == pytest.approx(cut[1], rel=1e-5) and whole[2] == cut[2] == sum(LENGTHS)
    for one, other in zip(whole[0], cut[0], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_dropout_depends_on_the_seed_alone() -> None:
    objective = Objective(network(dropout=0.3, attention_dropout=0.3).train(), config())
    first, second, third = (found(objective, [[3, 1], [0, 2, 4]], seed) for seed in (1, 1, 2))
    assert first[1] == second[1] != third[1]
    assert all(torch.equal(a, b) for a, b in zip(first[0], second[0], strict=True))
