"""Gradients of a batch on several CPU threads at once.

The products of a small model are short: two cores finish one of them in 0.6 of the time that one core takes, but half
the batch each in 0.5. So every lane, a Python thread with cores of its own, computes the gradients of its share of the
examples; torch leaves the interpreter's lock while it works, and custom backwards take it only for moments.
On an accelerator there is one lane, the calling thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from sourcewise.data.batches import Batch
from sourcewise.model.layers import dropout_seed
from sourcewise.training.objective import Objective

MOST_LANES = 4  # more would wait for the interpreter's lock


@dataclass(slots=True)
class Gradients:
    """What one lane found: a gradient a parameter, summed cross-entropy in nats, and the tokens it read."""

    of: Sequence[Tensor | None]
    nats: float
    source_tokens: int


class Lanes:
    """Computes gradients of `objective` with respect to `parameters`."""

    def __init__(self, objective: Objective, parameters: Sequence[Tensor], device: torch.device) -> None:
        self.objective, self.parameters = objective, list(parameters)
        threads = torch.get_num_threads()
        self.count = min(threads, MOST_LANES) if device.type == "cpu" else 1
        self.pool: ThreadPoolExecutor | None = None
        if self.count > 1:
            each = (threads // self.count,)
            self.pool = ThreadPoolExecutor(self.count, "lane", initializer=torch.set_num_threads, initargs=each)

    def gradients(self, parts: Sequence[Callable[[], Batch]], targets: int) -> list[Gradients]:
        """Gradients of the parts' loss a target token, in the order of the parts; `targets` tokens are in the step.

        Each part's dropout has a seed of its own, drawn here: nothing depends on which lane is first.
        """
        seeds = torch.empty(len(parts), dtype=torch.int64).random_().tolist()

        def run(part: Callable[[], Batch], seed: int) -> Gradients:
            with dropout_seed(seed):
                batch = part()
                minimised, nats = self.objective(batch)
                found = torch.autograd.grad(minimised / targets, self.parameters, allow_unused=True)
            return Gradients(found, float(nats), source_tokens(batch))

        return list((self.pool.map if self.pool else map)(run, parts, seeds))


def source_tokens(batch: Batch) -> int:
    """Source tokens, or frames, of a batch without padding."""
    lengths = batch.source.token_lengths if batch.source.frames is None else batch.source.frames
    assert lengths is not None
    return int(lengths.sum())

