"""Gradients of a step: by worker threads on a CPU, by `backward()` on an accelerator.

On a CPU each thread computes a part of a batch's examples; then each sums the gradients of a part of the weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from sourcewise.data.batches import Batch
from sourcewise.model.network import Seq2Seq
from sourcewise.native.training import kernels
from sourcewise.native.training.lookups import Lookup, lookups, put_lookups
from sourcewise.runtime.device import is_host
from sourcewise.runtime.threads import WorkerThreads
from sourcewise.training.objective import Objective
from sourcewise.training.optimizer import MasterAdamW
from sourcewise.training.parts import Part, drawing

LEAST_FLOPS = 5e10  # per batch; below, worker threads lose more by waiting for the interpreter than they gain
Found = tuple[list[list[Tensor]], int]  # nats per batch and part, where they were computed; source tokens


@dataclass(slots=True)
class Gradients:
    """Result for a batch: a gradient per parameter, summed nats per part, and the number of source tokens (frames).

    Nats are on the device of their computation, so that reading them waits for it.
    """

    of: Sequence[Tensor | None]
    nats: list[Tensor]
    source_tokens: int


class StepEngine(Protocol):
    """Interface of the computation of a step's gradients, which adds them to the optimizer's."""

    workers: int  # parts that are computed at the same time in this process
    parts: int  # best number of parts of a batch
    target_cost: float  # cost of a target token relative to a source token

    def gradients(self, batches: Sequence[Sequence[Part]], targets: int, reference: float) -> Found:
        """Compute the gradients of the mean loss per target token of batches with `targets` target tokens.

        `reference` is the share of reference tokens among the decoder's inputs.
        """


class ThreadedEngine:
    """Worker threads that call `torch.autograd.grad`, for CPUs, where each thread has its own cores."""

    def __init__(
        self, objective: nn.Module, optimizer: MasterAdamW, workers: WorkerThreads, target_cost: float = 1.0
    ) -> None:
        self.objective, self.optimizer, self.threads = objective, optimizer, workers
        self.workers = self.parts = workers.count
        self.target_cost = target_cost

    def gradients(self, batches: Sequence[Sequence[Part]], targets: int, reference: float) -> Found:
        """See StepEngine."""
        nats, source_tokens = [], 0
        for i, parts in enumerate(batches):
            room = None if i else self.optimizer.room
            objective = partial(self.objective, reference=reference)
            found = gradients(objective, self.optimizer.parameters, parts, targets, self.threads, room)
            self.optimizer.add(found.of)
            nats.append(found.nats)
            source_tokens += found.source_tokens
        return nats, source_tokens


class DeviceEngine:
    """`backward()` through the module, one batch at a time: for accelerators, and for hooks on gradients.

    `module` is the objective or a wrapper of it (DistributedDataParallel, FSDP2), whose gradient hooks run.
    """

    workers, parts = 1, 1

    def __init__(self, module: nn.Module, optimizer: MasterAdamW, target_cost: float = 1.0) -> None:
        self.module, self.optimizer, self.target_cost = module, optimizer, target_cost

    def gradients(self, batches: Sequence[Sequence[Part]], targets: int, reference: float) -> Found:
        """See StepEngine."""
        summed, source_tokens, parameters = [], 0, self.optimizer.parameters
        for part in (part for parts in batches for part in parts):
            with drawing(part.seed, parameters[0].device):
                batch = part.make()
                minimised, nats = self.module(batch, reference=reference)
                (minimised * (1 / targets)).backward()
            self.optimizer.add([parameter.grad for parameter in parameters])
            for parameter in parameters:
                parameter.grad = None
            summed.append([nats.detach()])
            source_tokens += int(batch.source.lengths.sum())
        return summed, source_tokens


def engine_for(objective: Objective, optimizer: MasterAdamW, batch_tokens: int) -> StepEngine:
    """The engine for the device of the weights, with one thread for small batches."""
    device = optimizer.parameters[0].device
    if not is_host(device):
        return DeviceEngine(objective, optimizer, target_cost(objective.network))
    # Approximate cost of a full batch: 6 FLOPs per parameter and token (Kaplan et al. 2020).
    flops = 6.0 * sum(p.numel() for p in objective.parameters()) * batch_tokens
    workers = WorkerThreads(device if flops > LEAST_FLOPS and objective.network.body.parallel else None)
    return ThreadedEngine(objective, optimizer, workers, target_cost(objective.network))


def target_cost(network: Seq2Seq) -> float:
    """Approximate cost of a target token relative to a source token, by the number of parameters that each uses."""
    sizes = Counter[str]()
    for info in network.parts():
        sizes[info.part] += info.parameter.numel()
    matrix = network.body.output_matrix
    if network.bridge is not None or not sizes["encoder"] or matrix is None:
        return 1.0
    return (sizes["decoder"] + matrix.numel()) / sizes["encoder"]


def gradients(
    objective: Callable[[Batch], tuple[Tensor, Tensor]],
    parameters: Sequence[Tensor],
    parts: Sequence[Part],
    targets: int,
    workers: WorkerThreads,
    room: Sequence[Tensor] | None = None,
) -> Gradients:
    """Gradients of the parts' loss per target token; `targets` is the number of target tokens in the step.

    `objective` returns the loss and the cross-entropy of a part, in nats summed over its target tokens. Sums over
    several parts are in fp32, in the tensors of `room` if given, one per parameter.
    """
    share = 1 / targets if len(parts) == 1 else 1.0  # else the sums are scaled, without an additional pass

    def run(part: Part) -> Gradients:
        with drawing(part.seed, parameters[0].device if workers.pool is None else None), lookups() as looked_up:
            batch = part.make()
            minimised, nats = objective(batch)
            wanted = [*parameters, *(look.vectors for look in looked_up)]
            found = torch.autograd.grad(minimised * share, wanted, allow_unused=True)
        return Gradients(_with_lookups(parameters, found, looked_up), [nats.detach()], int(batch.source.lengths.sum()))

    found = list(workers.map(run, parts))
    of = found[0].of if len(found) == 1 else _summed([each.of for each in found], 1 / targets, workers, room)
    return Gradients(of, [nats for each in found for nats in each.nats], sum(each.source_tokens for each in found))


def _summed(
    parts: Sequence[Sequence[Tensor | None]], scale: float, workers: WorkerThreads, room: Sequence[Tensor] | None
) -> list[Tensor | None]:
    """The sum of each parameter's gradients in fp32, in the order of the parts, times `scale`; by all threads."""
    sums: list[Tensor | None] = []
    work: list[tuple[Tensor, list[Tensor]]] = []  # flat
    for i, of_one in enumerate(zip(*parts, strict=True)):
        there = [gradient for gradient in of_one if gradient is not None]
        if not there:
            sums.append(None)
            continue
        to = torch.empty_like(there[0], dtype=torch.float32) if room is None else room[i]
        sums.append(to)
        work.append((to.view(-1), [gradient.flatten() for gradient in there]))

    def add(worker: int) -> None:
        for to, there in work:
            start, end = (len(to) * n // workers.count for n in (worker, worker + 1))
            _add_up([gradient[start:end] for gradient in there], scale, to[start:end])

    for _ in workers.map(add, range(workers.count)):
        pass
    return sums


def _add_up(gradients: list[Tensor], scale: float, to: Tensor) -> None:
    if all(kernels.takes(gradient) for gradient in gradients):
        kernels.add_up(gradients, scale, to)
        return
    to.copy_(gradients[0])
    for gradient in gradients[1:]:
        to.add_(gradient)
    to.mul_(scale)


def _with_lookups(
    parameters: Sequence[Tensor], found: Sequence[Tensor | None], looked_up: Sequence[Lookup]
) -> list[Tensor | None]:
    """Gradients of the parameters, from those found directly and those of rows looked up in embeddings."""
    of, rows = list(found[: len(parameters)]), found[len(parameters) :]
    pairs = [(look, row) for look, row in zip(looked_up, rows, strict=True) if row is not None]
    for i, parameter in enumerate(parameters):
        own = [(look, row) for look, row in pairs if look.weight is parameter]
        if own:
            of[i] = put_lookups([look for look, _ in own], [row for _, row in own], parameter, of[i])
    return of
