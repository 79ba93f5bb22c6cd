"""A training by 1,024 processes, of which this one computes what each would: its plan of a step, its shards.

    python benchmarks/thousand_ranks.py [--ranks 1024] [--shards 64] [--examples 10000000] [--json FILE]

Nothing is sent: torch's `fake` process group says that 1,024 are there. Measured in seconds of one core are the order
of the batches of an epoch, the parts of a step, the parts of one process, the groups of the mesh; then, for a T5 of
11 B parameters without their values, each process's shards of weights and moments, its plan of what it writes, and the
plan that the first makes of all plans. docs/scale_arithmetic.md has the figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.checkpoint import DefaultSavePlanner
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from sourcewise.data.batches import Budget, shares, training_batches
from sourcewise.model.families.transformer import Transformer, TransformerConfig
from sourcewise.model.network import Seq2Seq
from sourcewise.training.parts import Part, dealt, part_seed

T5_11B = TransformerConfig(
    32128, d_model=1024, d_kv=128, d_ff=65536, heads=128, encoder_layers=24, decoder_layers=24
)  # t5-11b
KINDS = ("masters", "exp_avg", "exp_avg_sq")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=1024)
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--examples", type=int, default=10_000_000)
    parser.add_argument("--tokens", type=int, default=32768, help="source and target tokens of a part")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = plan(asked.examples, asked.ranks, asked.tokens) | state(asked.ranks, asked.shards)
    for name, value in found.items():
        print(f"{name:58} {value:,.3f}" if isinstance(value, float) else f"{name:58} {value:,}")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def plan(examples: int, ranks: int, tokens: int) -> dict[str, float]:
    """What each process does to know the order of an epoch, and its parts of a step."""
    rng = np.random.default_rng(0)
    source, target = (rng.integers(10, 200, examples).astype(np.int64) for _ in range(2))
    budget = Budget(tokens * ranks)
    epoch, batches = timed(lambda: training_batches(source, target, budget, seed=0, epoch=0))
    rows = batches[0]

    def step() -> list[Part]:
        sizes = source[rows] + target[rows]
        cut = shares(np.arange(len(rows)), sizes, ranks)
        seeds = [part_seed(0, 7, place) for place in range(len(cut))]
        return [Part(lambda: None, seed, sizes[part].sum()) for part, seed in zip(cut, seeds, strict=True)]  # type: ignore[arg-type, return-value]

    of_step, parts = timed(step)
    deal, mine = timed(lambda: dealt(parts, ranks // 2, ranks))
    costs = np.array([part.cost for part in parts])
    return {
        "examples": examples,
        "order of an epoch, s": epoch,
        "steps of an epoch": len(batches),
        "examples of a step": len(rows),
        "parts of a step": len(parts),
        "parts of a step, s": of_step,
        "parts of a process": len(mine),
        "dealing them, s": deal,
        "dearest part over the mean": float(costs.max() / costs.mean()),
    }


def state(ranks: int, shards: int) -> dict[str, float]:
    """What each process holds and writes of weights and moments, and what the first process plans for all."""
    with torch.device("meta"):
        network = Seq2Seq(Transformer(T5_11B))
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    numbers = sum(int(np.prod(shape)) for shape in shapes.values())
    seconds, plans, held, empty = [], [], [], 0
    meshes = 0.0
    for rank in range(shards):  # replicas of a shard write nothing of their own
        made, mesh = timed(lambda rank=rank: joined(rank, ranks, shards))
        meshes = max(meshes, made)
        tensors = {
            f"{kind}.{name}": shard_of(shape, mesh, shards, rank) for name, shape in shapes.items() for kind in KINDS
        }
        held.append(sum(tensor.to_local().numel() * 4 for tensor in tensors.values()))
        empty += sum(not tensor.to_local().numel() for tensor in tensors.values())
        spent, made_plan = timed(lambda tensors=tensors, rank=rank: local_plan(tensors, rank))
        seconds.append(spent)
        plans.append(made_plan)
        dist.destroy_process_group()
    joined(0, ranks, shards)
    planner = DefaultSavePlanner()
    planner.set_up_planner({}, is_coordinator=True)
    whole, (_, metadata) = timed(lambda: planner.create_global_plan(plans))
    dist.destroy_process_group()
    items = sum(len(each.items) for each in plans)
    return {
        "parameters": numbers,
        "tensors of a state": len(shapes) * len(KINDS),
        "GB of a state": numbers * 4 * len(KINDS) / 1e9,
        "GB of a process, least": min(held) / 1e9,
        "GB of a process, most": max(held) / 1e9,
        "shards that are empty": empty,
        "groups of the mesh, s": meshes,
        "plan of what a process writes, s": max(seconds),
        "pieces that are written": items,
        "plan of all, by the first, s": whole,
        "tensors in its table": len(metadata.state_dict_metadata),
    }


def joined(rank: int, ranks: int, shards: int) -> DeviceMesh:
    """The mesh of replicas × shards as this process would see it."""
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=ranks)
    places = torch.arange(ranks).view(-1, shards)
    groups = []
    for lines in (places.T, places):  # as sourcewise/training/sharding.py makes them
        made = [(line.tolist(), dist.new_group(line.tolist())) for line in lines]
        groups.append(next(group for line, group in made if rank in line))
    return DeviceMesh.from_group(groups, "cpu", mesh=places, mesh_dim_names=("replicate", "shard"))


def shard_of(shape: tuple[int, ...], mesh: DeviceMesh, shards: int, rank: int) -> DTensor:
    """This process's shard, cut as FSDP2 does, without its values."""
    pieces = torch.chunk(torch.empty(shape, device="meta"), shards)
    place = rank % shards
    own = pieces[place] if place < len(pieces) else torch.empty((0, *shape[1:]), device="meta")
    whole = torch.empty(shape, device="meta")
    return DTensor.from_local(own, mesh["shard"], [Shard(0)], shape=whole.shape, stride=whole.stride())


def local_plan(tensors: dict[str, DTensor], rank: int) -> Any:
    planner = DefaultSavePlanner()
    planner.set_up_planner(tensors, is_coordinator=rank == 0)
    return planner.create_local_plan()


if __name__ == "__main__":
    sys.exit(main())
