"""Parts of a step: every example once, in whichever process, with draws that belong to the part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from sourcewise.data.batches import Batch, Budget, shares, training_batches
from sourcewise.runtime.threads import WorkerThreads
from sourcewise.training.learner import Learner
from sourcewise.training.optimizer import MasterAdamW
from sourcewise.training.parts import Part, dealt, part_seed
from sourcewise.training.setup import set_up
from sourcewise.training.step import ThreadedEngine, engine_for, target_cost
from tests.training.recipes import recipe


def part(cost: float, seed: int = 0) -> Part:
    def make() -> Batch:
        raise NotImplementedError

    return Part(make, seed, cost)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    lengths=some.lists(some.tuples(some.integers(1, 9), some.integers(1, 40)), min_size=1, max_size=50),
    world=some.integers(1, 7),
    budget=some.integers(1, 200),
    accumulate=some.integers(1, 4),
    count=some.integers(1, 12),
)
def test_every_example_is_in_one_part_of_one_process(
    lengths: list[tuple[int, int]], world: int, budget: int, accumulate: int, count: int
) -> None:
    source, target = (np.array(side) for side in zip(*lengths, strict=True))
    sizes = (source + target).astype(float)
    batches = training_batches(source, target, Budget(budget), seed=3, epoch=0)
    trained: list[int] = []
    for start in range(0, len(batches), accumulate):
        step = batches[start : start + accumulate]
        rows = [share for batch in step for share in shares(batch, sizes, count)]
        parts = [part(sizes[each].sum(), place) for place, each in enumerate(rows)]
        of_ranks = [dealt(parts, rank, world) for rank in range(world)]
        assert len({len(mine) for mine in of_ranks}) == 1  # each takes part in as many sums
        there = [each for mine in of_ranks for each in mine if each is not None]
        assert sorted(each.seed for each in there) == [*range(len(rows))]
        joined = [int(i) for each in there for i in rows[each.seed]]
        assert target[joined].sum() == sum(target[batch].sum() for batch in step)  # the divisor
        trained += joined
    assert sorted(trained) == [*range(len(lengths))]


def test_parts_of_similar_cost_are_computed_at_the_same_time() -> None:
    parts = [part(cost) for cost in (1, 9, 2, 8, 3, 7, 4)]
    first, second = (dealt(parts, rank, 2) for rank in range(2))
    assert [each and each.cost for each in first] == [9, 7, 3, 1]
    assert [each and each.cost for each in second] == [8, 4, 2, None]


def test_draws_belong_to_seed_step_and_part() -> None:
    seeds = {(s, t, p): part_seed(s, t, p) for s in range(3) for t in range(50) for p in range(20)}
    assert len(set(seeds.values())) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds.values())
    assert part_seed(1, 2, 3) == seeds[1, 2, 3]


@pytest.mark.parametrize("world", [1, 2, 5])
def test_fewer_parts_than_processes_leave_some_without(world: int) -> None:
    found = [dealt([part(1)], rank, world) for rank in range(world)]
    assert [mine[0] is not None for mine in found] == [True, *[False] * (world - 1)]


@pytest.mark.parametrize("threads", [1, 2])
def test_parts_are_cut_alike_by_any_engine(threads: int, tmp_path: Path) -> None:
    """By one thread, several, or a device: else another number of processes would draw other masks."""
    objective = Learner(set_up(recipe(tmp_path, train__parts=12))).objective
    optimizer = MasterAdamW(objective, recipe(tmp_path).train, torch.float32)
    wanted = target_cost(objective.network)
    assert wanted != 1.0
    workers = WorkerThreads(None)
    workers.count = threads
    assert ThreadedEngine(objective, optimizer, workers, wanted).target_cost == wanted
    assert engine_for(objective, optimizer, 256).target_cost == wanted
