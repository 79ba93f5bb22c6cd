"""Source bits: the gain in log2-probability per target token from the own source over another example's.

For target token t of an example with source x:  log2 p(y_t | y_<t, x) − log2 p(y_t | y_<t, x̃),  where x̃ is the source
of another example of similar length; averaged over target tokens. Near zero, the decoder does not use its source,
whatever its loss. (Related: cross-mutual information, Bugliarello et al. 2020.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import torch

from sourcewise.data.batches import Budget, sorted_batches
from sourcewise.data.encoding import ExampleSet
from sourcewise.metrics.significance import interval
from sourcewise.model.protocol import Network, token_nats


@dataclass(slots=True)
class SourceBits:
    """Nats per example, summed over target tokens, with the own source and with another's (NaN: no other source)."""

    nats: np.ndarray  # (examples,)
    shuffled: np.ndarray  # (examples,)
    tokens: np.ndarray  # (examples,)
    understood: str = ""  # assumptions about the batch, in words

    @property
    def loss(self) -> float:
        """Nats per target token with the own source."""
        return float(self.nats.sum() / self.tokens.sum())

    @property
    def loss_shuffled(self) -> float:
        """Nats per target token with another example's source; NaN if no two sources differ."""
        known = ~np.isnan(self.shuffled)
        return float(self.shuffled[known].sum() / self.tokens[known].sum()) if known.any() else math.nan

    @property
    def bits(self) -> float:
        """Source bits per target token; NaN if no two sources differ."""
        known = ~np.isnan(self.shuffled)
        if not known.any():
            return math.nan
        gained = self.shuffled[known] - self.nats[known]
        return float(gained.sum() / self.tokens[known].sum() / math.log(2))

    def select(self, rows: slice) -> SourceBits:
        """The source bits of these examples only."""
        return SourceBits(self.nats[rows], self.shuffled[rows], self.tokens[rows], self.understood)

    def ci95(self) -> tuple[float, float]:
        """The 95 % bootstrap interval of `bits` over examples; NaNs if no two sources differ."""
        known = ~np.isnan(self.shuffled)
        if not known.any():
            return math.nan, math.nan
        return interval((self.shuffled[known] - self.nats[known]) / math.log(2), self.tokens[known])


def partners(encoded: ExampleSet) -> np.ndarray:
    """For each example the position of another one whose source differs, of the nearest length; −1: none.

    Among examples sorted by source length, it is the next or the previous one that differs, whichever is nearer, the
    next if both are. The pairing does not depend on the batch size. In a mixture partners are of the same task, so
    that the gain does not come from recognising the task.
    """
    if len(encoded.parts) > 1:
        starts = [0, *accumulate(len(part) for part in encoded.parts)]
        own = [partners(part) for part in encoded.parts]
        return np.concatenate([np.where(o < 0, o, o + start) for o, start in zip(own, starts, strict=False)])
    return nearest_others(encoded.source_lengths, lambda i, j: _same_source(encoded, i, j))


def nearest_others(lengths: np.ndarray, same: Callable[[int, int], bool]) -> np.ndarray:
    """`partners` for sources of these lengths, compared by `same`: (examples,) indices, −1 for none."""
    order = np.argsort(lengths, kind="stable")
    alike = [same(int(i), int(j)) for i, j in pairwise(order)]  # equal to the previous one in the order
    size = len(order)
    after, before = np.full(size, -1), np.full(size, -1)  # places in the order of the nearest that differ
    for place in range(1, size):
        before[place] = before[place - 1] if alike[place - 1] else place - 1
    for place in range(size - 2, -1, -1):
        after[place] = after[place + 1] if alike[place] else place + 1
    found = np.full(size, -1)
    for place, i in enumerate(order):
        others = [order[k] for k in (after[place], before[place]) if k >= 0]
        found[i] = min(others, key=lambda j: abs(lengths[j] - lengths[i]), default=-1)
    return found


def _same_source(encoded: ExampleSet, i: int, j: int) -> bool:
    """Whether two truncated sources are equal; prompts beside features are ignored."""
    if encoded.source_lengths[i] != encoded.source_lengths[j]:
        return False
    return bool(np.array_equal(encoded.read(i), encoded.read(j)))


@torch.inference_mode()
def source_bits(
    network: Network,
    encoded: ExampleSet,
    batch_tokens: int = 8192,
    progress: Callable[[int, int], None] | None = None,
    share: tuple[int, int] = (0, 1),
) -> SourceBits:
    """Teacher-forced nats of every example with its own source and with its partner's.

    With a `share` (k, n) only every n-th batch from the k-th on: other examples count 0, for a sum over all shares.
    """
    other = partners(encoded)
    size = len(encoded)
    nats, shuffled = np.zeros(size), np.where(other >= 0, 0.0, np.nan)
    done = 0
    batches = sorted_batches(encoded.source_lengths, encoded.target_lengths, Budget(batch_tokens))
    for indices in batches[share[0] :: share[1]]:
        batch = encoded.batch(indices)
        memory = network.encode(batch.source)
        labels = batch.labels.to(memory.mask.device)
        nats[indices] = token_nats(network, memory, labels).cpu().double().sum(1)
        paired = indices[other[indices] >= 0]
        if len(paired):
            wrong = encoded.source(other[paired])
            kept = torch.from_numpy(other[indices] >= 0).to(labels.device)
            shuffled[paired] = token_nats(network, network.encode(wrong), labels[kept]).cpu().double().sum(1)
        done += len(indices)
        if progress is not None:
            progress(done, size)
    return SourceBits(nats, shuffled, encoded.target_lengths.astype(np.float64))
