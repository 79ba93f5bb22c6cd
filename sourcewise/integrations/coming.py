"""The batches of somebody else's training as they come: a few figures of each, and which are the same."""

from __future__ import annotations

import hashlib
import math

import numpy as np
from torch import Tensor

from sourcewise.data.batches import IGNORED
from sourcewise.diagnosis.coming import Batched, Coming
from sourcewise.diagnosis.rules.data.dat028_same_batches import SameBatches

KINDS = 48  # into which tokens of each side are sorted by their ids
KEPT = 128  # batches, from which on every other one is left out
EVERY = 8  # batches that are kept, from one look at them to the next


class Stream:
    """Keeps figures of batches, ever more apart; labels and sources are ids (batch, time) on any device."""

    def __init__(self, *, grouped: bool = False) -> None:
        self.grouped = grouped
        self._kept: list[Batched] = []
        self._first: list[int] = []
        self._stride = self._passed = 0
        self._new = 0

    @property
    def due(self) -> bool:
        """Whether there is enough that is new."""
        return self._new >= EVERY

    @property
    def wants(self) -> bool:
        """Whether the next batch is one of those that are kept; to be asked once for each."""
        self._passed += 1
        return len(self._first) < SameBatches.first or (self._passed - 1) % max(1, self._stride) == 0

    def add(self, step: int, source: Tensor, real: Tensor, labels: Tensor) -> None:
        """Keep a batch: sources, ids (batch, time) or features (batch, frames, dims), where they are real, labels."""
        held, ids, said = real.cpu().numpy().astype(bool), None, labels.detach().cpu().numpy()
        if source.ndim == 2:
            ids = source.detach().cpu().numpy()
        counts = said != IGNORED
        kinds = [_kinds(said, counts)] + ([] if ids is None else [_kinds(ids, held)])
        table = np.concatenate([counts.sum(1)[:, None], held.sum(1)[:, None], *kinds], 1)  # (batch, figures)
        if len(self._first) < SameBatches.first:
            rows = [np.where(counts, said, -1)] + ([] if ids is None else [np.where(held, ids, -1)])
            self._first.append(_key(np.concatenate(rows, 1)))
        strength = math.nan if ids is not None else _strength(source, real)
        self._kept.append(Batched(step, len(table), table.sum(0), (table**2).sum(0), strength))
        self._new += 1
        if len(self._kept) >= 2 * KEPT:
            self._kept, self._stride = self._kept[::2], 2 * max(1, self._stride)

    def coming(self) -> Coming:
        """All that is known."""
        self._new = 0
        width = min((len(each.sums) for each in self._kept), default=0)
        kept = [each for each in self._kept if len(each.sums) == width]
        return Coming(kept, grouped=self.grouped, first=self._first)


def _strength(frames: Tensor, real: Tensor) -> float:
    """The root mean square of frames (batch, frames, dims) that are no padding."""
    held = frames.detach()[real.bool()].float()
    return float(held.square().mean().sqrt()) if held.numel() else 0.0


def _kinds(ids: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(batch, KINDS): which kinds of tokens each row has, 1 or 0."""
    out = np.zeros((len(ids), KINDS))
    rows, places = np.nonzero(counts)
    out[rows, ids[rows, places] % KINDS] = 1
    return out


def _key(table: np.ndarray) -> int:
    """The same for the same rows in any order."""
    rows = sorted(np.ascontiguousarray(row[row >= 0]).tobytes() for row in table)
    return int.from_bytes(hashlib.blake2b(b"|".join(rows), digest_size=8).digest(), "little")
