"""The gradients of a batch, each lane those of its share of the examples; then each sums its share of the weights'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sourcewise.data.batches import Batch
from sourcewise.model.blocks.layers import Lookup, dropout_seed, lookups, put_lookups
from sourcewise.native import training as kernels
from sourcewise.runtime.threads import WorkerThreads


@dataclass(slots=True)
class Gradients:
    """Of a batch: a gradient a parameter, summed cross-entropy in nats, and the source tokens (frames) it read."""

    of: Sequence[Tensor | None]
    nats: float
    source_tokens: int


def gradients(
    objective: Callable[[Batch], tuple[Tensor, Tensor]],
    parameters: Sequence[Tensor],
    parts: Sequence[Callable[[], Batch]],
    targets: int,
    workers: WorkerThreads,
    room: Sequence[Tensor] | None = None,
) -> Gradients:
    """Gradients of the parts' loss a target token; `targets` tokens are in the step.

    `objective` gives what to minimise and the cross-entropy of a part, in nats summed over its target tokens. What it
    draws (dropout, what the decoder is fed) has a seed a part, drawn here: nothing depends on which lane is first.
    The sums of several parts are in fp32, in `room` where it is given, one tensor a parameter.
    """
    seeds = torch.empty(len(parts), dtype=torch.int64).random_().tolist()
    share = 1 / targets if len(parts) == 1 else 1.0  # else sums are scaled, which takes no pass of its own

    def run(work: tuple[Callable[[], Batch], int]) -> Gradients:
        part, seed = work
        with dropout_seed(seed), lookups() as looked_up:
            batch = part()
            minimised, nats = objective(batch)
            wanted = [*parameters, *(look.vectors for look in looked_up)]
            found = torch.autograd.grad(minimised * share, wanted, allow_unused=True)
        return Gradients(_with_lookups(parameters, found, looked_up), float(nats), _source_tokens(batch))

    found = list(workers.map(run, zip(parts, seeds, strict=True)))
    of = found[0].of if len(found) == 1 else _summed([each.of for each in found], 1 / targets, workers, room)
    return Gradients(of, sum(each.nats for each in found), sum(each.source_tokens for each in found))


def _summed(
    parts: Sequence[Sequence[Tensor | None]], scale: float, workers: WorkerThreads, room: Sequence[Tensor] | None
) -> list[Tensor | None]:
    """The sum of each parameter's gradients in fp32, in the order of the parts, times scale; each lane does a share."""
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

    def add(lane: int) -> None:
        for to, there in work:
            start, end = (len(to) * n // workers.count for n in (lane, lane + 1))
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
    """Gradients by the parameters, from those and, after them, those by what was looked up in embeddings."""
    of, rows = list(found[: len(parameters)]), found[len(parameters) :]
    pairs = [(look, row) for look, row in zip(looked_up, rows, strict=True) if row is not None]
    for i, parameter in enumerate(parameters):
        own = [(look, row) for look, row in pairs if look.weight is parameter]
        if own:
            of[i] = put_lookups([look for look, _ in own], [row for _, row in own], parameter, of[i])
    return of


def _source_tokens(batch: Batch) -> int:
    lengths = batch.source.token_lengths if batch.source.frames is None else batch.source.frames
    assert lengths is not None
    return int(lengths.sum())
