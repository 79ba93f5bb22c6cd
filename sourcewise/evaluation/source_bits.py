"""Source bits: what a target token gains from its own source rather than another example's.

For target token t of an example with source x:  log2 p(y_t | y_<t, x) − log2 p(y_t | y_<t, x̃),  x̃ being the source of
another example of similar length. Averaged over target tokens. Near zero, the decoder does not use its source,
whatever its loss. (Kin: cross-mutual information, Bugliarello et al. 2020.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from sourcewise.data.batches import Budget, sorted_batches
from sourcewise.data.encoding import Encoded
from sourcewise.evaluation.bootstrap import interval
from sourcewise.model.protocol import Network, token_nats


@dataclass(slots=True)
class SourceBits:
    """Per example, summed over its target tokens: nats with its own source and with another's (NaN: no other)."""

    nats: np.ndarray  # (examples,)
    shuffled: np.ndarray  # (examples,)
    tokens: np.ndarray  # (examples,)

    @property
    def loss(self) -> float:
        """Nats a target token with the own source."""
        return float(self.nats.sum() / self.tokens.sum())

    @property
    def loss_shuffled(self) -> float:
        """Nats a target token with another example's source; NaN where no two sources differ."""
        known = ~np.isnan(self.shuffled)
        return float(self.shuffled[known].sum() / self.tokens[known].sum()) if known.any() else math.nan

    @property
    def bits(self) -> float:
        """Source bits a target token; NaN where no two sources differ."""
        known = ~np.isnan(self.shuffled)
        if not known.any():
            return math.nan
        gained = self.shuffled[known] - self.nats[known]
        return float(gained.sum() / self.tokens[known].sum() / math.log(2))

    def ci95(self) -> tuple[float, float]:
        """Bootstrap interval of `bits` over examples; NaNs where no two sources differ."""
        known = ~np.isnan(self.shuffled)
        if not known.any():
            return math.nan, math.nan
        return interval((self.shuffled[known] - self.nats[known]) / math.log(2), self.tokens[known])


def partners(encoded: Encoded) -> np.ndarray:
    """For each example the position of another one whose source differs and is of similar length; −1: none.

    Examples sorted by source length are paired with the next that differs, else with the one before.
    The pairing is the same whatever the batch size.
    """
    order = np.argsort(encoded.source_lengths, kind="stable")
    found = np.full(len(order), -1)
    for place, i in enumerate(order):
        others = chain(order[place + 1 :], order[:place][::-1])
        found[i] = next((j for j in others if not _same_source(encoded, int(i), int(j))), -1)
    return found


def _same_source(encoded: Encoded, i: int, j: int) -> bool:
    if encoded.source_lengths[i] != encoded.source_lengths[j]:
        return False
    if encoded.dataset.dims:
        return bool(np.array_equal(encoded.dataset.features(i), encoded.dataset.features(j)))
    assert encoded.sources is not None
    return bool(np.array_equal(encoded.sources[i], encoded.sources[j]))


@torch.inference_mode()
def source_bits(
    network: Network,
    encoded: Encoded,
    batch_tokens: int = 8192,
    progress: Callable[[int, int], None] | None = None,
) -> SourceBits:
    """Teacher-forced nats of every example, with its own source and with its partner's."""
    other = partners(encoded)
    size = len(encoded)
    nats, shuffled = np.zeros(size), np.full(size, np.nan)
    done = 0
    batches = sorted_batches(encoded.source_lengths, encoded.target_lengths, Budget(batch_tokens))
    for indices in batches:
        batch = encoded.batch(indices)
        memory = network.encode(batch.source)
        labels = batch.labels.to(memory.mask.device)
        nats[indices] = token_nats(network, memory, labels).double().sum(1).cpu()
        paired = indices[other[indices] >= 0]
        if len(paired):
            wrong = encoded.source(other[paired])
            kept = torch.from_numpy(other[indices] >= 0).to(labels.device)
            shuffled[paired] = token_nats(network, network.encode(wrong), labels[kept]).double().sum(1).cpu()
        done += len(indices)
        if progress is not None:
            progress(done, size)
    return SourceBits(nats, shuffled, encoded.target_lengths.astype(np.float64))
