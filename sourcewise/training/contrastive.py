"""A contrastive loss between the own source and another one: source bits as a training objective.

For an example with target y and source x, and a source x̃ of another example with similar length, it is
max(0, m·T − (ln p(y | x) − ln p(y | x̃))), with the margin m in nats per target token and T target tokens. It is a
max-margin loss (Yang et al. 2019, there against targets with omitted words); the margin keeps p(y | x̃) bounded.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sourcewise.data.batches import IGNORED
from sourcewise.data.encoding import ExampleSet
from sourcewise.model.loss import LinearCrossEntropy, chunk_rows

STREAM = 11  # of an example's random draws
REACH = 32  # the other source is among so many neighbours by length, on either side


class Partners:
    """Draws another example of the same task for the contrast, by (seed, epoch, example)."""

    def __init__(self, examples: ExampleSet, seed: int) -> None:
        self.seed = seed
        starts = [0, *accumulate(len(part) for part in examples.parts)]
        self.starts = np.array(starts[:-1])
        self.orders = [
            np.argsort(part.source_lengths, kind="stable") + s for part, s in zip(examples.parts, starts, strict=False)
        ]
        self.ranks = np.concatenate([np.argsort(order) for order in self.orders])

    def __call__(self, indices: list[int], epoch: int) -> np.ndarray:
        """Indices of examples → as many others; the only example of a task gets itself."""
        return np.array([self._of(index, epoch) for index in indices])

    def _of(self, index: int, epoch: int) -> int:
        order = self.orders[int(np.searchsorted(self.starts, index, side="right")) - 1]
        rng = np.random.default_rng([self.seed, epoch, index, STREAM])
        step = int(rng.integers(1, max(2, min(REACH, len(order) - 1) + 1))) * (1 if rng.random() < 0.5 else -1)
        rank = int(self.ranks[index])
        place = rank + step if 0 <= rank + step < len(order) else rank - step
        return int(order[min(max(place, 0), len(order) - 1)])


def contrastive(
    cross_entropy: LinearCrossEntropy, own: Tensor, other: Tensor, matrix: Tensor | None, labels: Tensor, margin: float
) -> Tensor:
    """The loss above, summed over examples.

    `own` and `other` are the decoder's states (batch × time, width) with the own and with another source; `matrix` is
    (vocabulary, width), or None where states are logits; `labels` are (batch, time).
    """
    gained = _example_nats(other, matrix, labels) - _example_nats(own, matrix, labels)
    wanted = margin * (labels != IGNORED).sum(1)
    short = gained < wanted
    if cross_entropy.at_hand and not bool(short.any()):
        return own.sum() * 0
    kept = labels.masked_fill(~short[:, None], IGNORED).flatten()
    return (wanted * short).sum() + cross_entropy(own, matrix, kept)[0] - cross_entropy(other, matrix, kept)[0]  # type: ignore[no-any-return]


@torch.no_grad()
def _example_nats(states: Tensor, matrix: Tensor | None, labels: Tensor) -> Tensor:
    """Nats (batch,) of each example's labels, with logits in chunks of tokens."""
    flat, rows = labels.flatten(), chunk_rows(states.shape[1] if matrix is None else len(matrix))
    parts = zip(states.split(rows), flat.split(rows), strict=True)
    logits = ((x if matrix is None else x @ matrix.T, y) for x, y in parts)
    nats = [F.cross_entropy(x.float(), y, ignore_index=IGNORED, reduction="none") for x, y in logits]
    return torch.cat(nats).view_as(labels).sum(1)
