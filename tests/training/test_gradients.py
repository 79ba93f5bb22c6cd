"""Gradients of a batch cut into shares: the same as of the whole, and the same each time with dropout."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import pytest
import torch

from sourcewise.data.batches import IGNORED, Batch
from sourcewise.model.place import place
from sourcewise.runtime.threads import WorkerThreads
from sourcewise.training.objective import Objective
from sourcewise.training.parts import Part
from sourcewise.training.step import Gradients, gradients
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


def found(objective: Objective, shares: list[list[int]], seed: int = 0) -> Gradients:
    """Of the shares, in two workers."""
    place(objective, "cpu")
    kept = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        parameters = [p for p in objective.parameters() if p.requires_grad]
        workers = WorkerThreads(torch.device("cpu"))
        return gradients(
            objective,
            parameters,
            [Part(partial(part, rows), seed + 7 * i) for i, rows in enumerate(shares)],
            28,
            workers,
        )
    finally:
        torch.set_num_threads(kept)


def nats(of: Gradients) -> float:
    return sum(float(each) for each in of.nats)


def pairs(first: Gradients, second: Gradients) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for one, other in zip(first.of, second.of, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            yield one, other


@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_shares_add_up_to_the_whole(precision: torch.dtype, tolerance: float) -> None:
    objective = Objective(network(dropout=0.0, attention_dropout=0.0).train(), config()).to(precision)
    whole, cut = found(objective, [[0, 1, 2, 3, 4]]), found(objective, [[3, 1], [0], [4, 2]])
    assert nats(whole) == pytest.approx(nats(cut), rel=tolerance)
    assert whole.source_tokens == cut.source_tokens == sum(LENGTHS)
    for one, other in pairs(whole, cut):
        assert other.dtype == torch.float32 and not one.is_sparse
        assert (one.float() - other).norm() <= tolerance * one.float().norm() + 1e-7


def test_a_step_is_weighted_by_tokens_whoever_computes_them() -> None:
    """Targets of 1 and of 40 tokens in two processes: their sums are the whole's, a mean of their means is not."""
    objective = Objective(network(dropout=0.0, attention_dropout=0.0).train(), config())
    source, labels = text_source([5, 3]), torch.randint(3, 20, (2, 40), generator=torch.Generator().manual_seed(1))
    labels[0, 1:] = IGNORED
    parameters = list(objective.parameters())

    def of(rows: list[int], divisor: int) -> torch.Tensor:
        batch = Batch(source.select(torch.tensor(rows)), labels[rows], rows)
        found = gradients(objective, parameters, [Part(lambda: batch, 0)], divisor, WorkerThreads(torch.device("cpu")))
        return torch.cat([each.to_dense().float().flatten() for each in found.of if each is not None])

    whole = of([0, 1], 41)
    assert (of([0], 41) + of([1], 41) - whole).norm() <= 1e-6 * whole.norm()
    assert (of([0], 1) / 2 + of([1], 40) / 2 - whole).norm() > 0.1 * whole.norm()


def test_sums_are_put_where_they_are_wanted() -> None:
    objective = Objective(network(dropout=0.0, attention_dropout=0.0).train(), config()).bfloat16()
    room = [torch.full_like(p, math.nan, dtype=torch.float32) for p in objective.parameters()]
    parts = [Part(partial(part, rows), 0) for rows in ([3, 1], [0, 4, 2])]
    summed = gradients(objective, list(objective.parameters()), parts, 28, WorkerThreads(None), room)
    for to, one in zip(room, summed.of, strict=True):
        assert (one is None and to.isnan().all()) or (one is to and to.isfinite().all())


def test_dropout_depends_on_the_seed_alone() -> None:
    objective = Objective(network(dropout=0.3, attention_dropout=0.3).train(), config())
    first, second, third = (found(objective, [[3, 1], [0, 2, 4]], seed) for seed in (1, 1, 2))
    assert nats(first) == nats(second) != nats(third)
    assert all(torch.equal(a, b) for a, b in pairs(first, second))
