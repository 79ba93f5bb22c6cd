"""Batches of examples as tensors, and the order of batches.

The order is a function of (seed, epoch) alone, so that a run resumes exactly, and several processes know each other's
batches without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sourcewise.data.layout import Layout

IGNORED = -100  # label of a padded target position

# Training batches have few shapes, since oneDNN compiles code for each new one, which costs more than padding.
EXAMPLES = 16  # examples per batch are a multiple of this
SHARE = 8  # examples per part of a batch, for a CPU thread, are a multiple of this
TOKENS = 2  # widths in tokens are a multiple of this
FRAMES = 8  # widths in frames are a multiple of this
WIDE = 16  # on an accelerator both are: its attention pads a bias that is no multiple of this, a copy a layer


def length_mask(lengths: Tensor, width: int) -> Tensor:
    """(batch,) lengths → (batch, width) bool, false at padding."""
    return torch.arange(width, device=lengths.device) < lengths[:, None]


def turned_rows(table: Tensor, lengths: Tensor, kept: int) -> Tensor:
    """Rows (batch, time, …) from their ends to their beginnings, `kept` last places and padding left as they are."""
    out = table.clone()
    for i, length in enumerate(lengths.tolist()):
        out[i, : max(0, length - kept)] = table[i, : max(0, length - kept)].flip(0)
    return out


@dataclass(slots=True)
class Source:
    """The sources of a batch: tokens, or features with an optional prompt in `tokens`."""

    tokens: Tensor | None = None  # (batch, time) int64, padded on the right
    token_lengths: Tensor | None = None  # (batch,), on the host
    features: Tensor | None = None  # (batch, frames, dims) float32, zero-padded on the right
    frames: Tensor | None = None  # (batch,), on the host

    def __len__(self) -> int:
        return len(self.content)

    @property
    def content(self) -> Tensor:
        """The features, or else the tokens, (batch, time, …)."""
        found = self.tokens if self.features is None else self.features
        assert found is not None
        return found

    @property
    def lengths(self) -> Tensor:
        """(batch,) lengths of the content."""
        found = self.token_lengths if self.features is None else self.frames
        assert found is not None
        return found

    @property
    def mask(self) -> Tensor:
        """(batch, time) bool, false at padding of the content."""
        return self.token_mask if self.features is None else self.frame_mask

    @property
    def prompt(self) -> int:
        """Number of positions of the prompts, which stand before the features."""
        return 0 if self.features is None or self.tokens is None else self.tokens.shape[1]

    def with_content(self, content: Tensor) -> Source:
        """The same sources with another content; a prompt beside features is unchanged."""
        return replace(self, tokens=content) if self.features is None else replace(self, features=content)

    def select(self, rows: Tensor) -> Source:
        """These rows (int64 indices), with unchanged width."""
        parts = (self.tokens, self.token_lengths, self.features, self.frames)
        return Source(*(None if part is None else part[rows.to(part.device)] for part in parts))

    def turned(self) -> Source | None:
        """Each source's content from its end to its beginning, ends of text left in place; None if that is the same."""
        table = turned_rows(self.content, self.lengths, 1 if self.features is None else 0)
        return None if torch.equal(table, self.content) else self.with_content(table)

    def exchanged(self) -> Source | None:
        """Each source with another one's content, at its own length and with its own end; None if all are equal."""
        lengths, table = self.lengths.tolist(), self.content
        kept = 1 if self.features is None else 0  # the end of text is unchanged
        out, different = table.clone(), False
        for i, length in enumerate(lengths):
            room = max(0, length - kept)
            for j in [(i + step) % len(lengths) for step in range(1, len(lengths))]:
                if room and lengths[j] > kept:
                    content = table[j, : lengths[j] - kept]
                    filled = torch.cat([content] * -(-room // len(content)))[:room]
                    if not torch.equal(filled, table[i, :room]):
                        out[i, :room], different = filled, True
                        break
        return self.with_content(out) if different else None

    def with_garbage(self, vocabulary: int, wider: int, draw: torch.Generator) -> Source | None:
        """The same sources with garbage at padding, and `wider` more positions of it; None without padding."""
        other = replace(self)
        if self.tokens is not None and self.token_lengths is not None:
            tokens = F.pad(self.tokens, (0, wider))
            garbage = torch.randint(vocabulary, tokens.shape, generator=draw).to(tokens)
            real = length_mask(self.token_lengths.to(tokens.device), tokens.shape[1])
            other.tokens = torch.where(real, tokens, garbage)
        if self.features is not None and self.frames is not None:
            features = F.pad(self.features, (0, 0, 0, wider))
            garbage = torch.randn(features.shape, generator=draw).to(features)
            garbage = garbage * 3 * self.features.std() + self.features.mean()
            real = length_mask(self.frames.to(features.device), features.shape[1])[..., None]
            other.features = torch.where(real, features, garbage)
        pairs = ((self.tokens, other.tokens), (self.features, other.features))
        same = all(one is None or other is None or torch.equal(one, other) for one, other in pairs)
        return None if same else other

    @property
    def token_mask(self) -> Tensor:
        """(batch, time) bool."""
        assert self.tokens is not None
        return self.token_layout.on(self.tokens.device).mask

    @property
    def frame_mask(self) -> Tensor:
        """(batch, frames) bool."""
        assert self.features is not None
        return self.frame_layout.on(self.features.device).mask

    @property
    def token_layout(self) -> Layout:
        """Layout of the tokens."""
        assert self.tokens is not None and self.token_lengths is not None
        return Layout(self.token_lengths.numpy(force=True), self.tokens.shape[1])

    @property
    def frame_layout(self) -> Layout:
        """Layout of the features."""
        assert self.features is not None and self.frames is not None
        return Layout(self.frames.numpy(force=True), self.features.shape[1])

    def to(self, device: torch.device | str) -> Source:
        """The same source on a device; lengths stay on the host."""
        tokens, features = (
            None if part is None else part.to(device, non_blocking=True) for part in (self.tokens, self.features)
        )
        return Source(tokens, self.token_lengths, features, self.frames)


@dataclass(slots=True)
class Batch:
    """Sources and labels."""

    source: Source
    labels: Tensor  # (batch, time) int64, end of text included, IGNORED after it
    indices: list[int]  # position of each example in its set

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def target_tokens(self) -> int:
        """Number of labels that count in the loss."""
        return int((self.labels != IGNORED).sum())

    def pinned(self) -> Batch:
        """The same batch in memory that an accelerator can read while the host goes on."""
        s = self.source
        tokens, features = (None if part is None else part.pin_memory() for part in (s.tokens, s.features))
        source = Source(tokens, s.token_lengths, features, s.frames)
        return replace(self, source=source, labels=self.labels.pin_memory())

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        return replace(self, source=self.source.to(device), labels=self.labels.to(device, non_blocking=True))


def pad(rows: Sequence[Sequence[int] | np.ndarray], value: int, multiple: int = 1) -> tuple[Tensor, Tensor]:
    """Lists of ids → (batch, longest) int64 padded on the right, and (batch,) lengths; the width is a multiple."""
    lengths = np.array([len(r) for r in rows], dtype=np.int64)
    out = np.full((len(rows), _up(lengths.max(initial=0), multiple)), value, dtype=np.int64)
    out[np.arange(out.shape[1]) < lengths[:, None]] = np.fromiter(chain.from_iterable(rows), np.int64, lengths.sum())
    return torch.from_numpy(out), torch.from_numpy(lengths)


def pad_features(rows: Sequence[np.ndarray], multiple: int = 1) -> tuple[Tensor, Tensor]:
    """(frames, dims) matrices → (batch, longest, dims) float32 zero-padded, and (batch,) frame counts."""
    lengths = [len(r) for r in rows]
    out = np.zeros((len(rows), _up(max(lengths), multiple), rows[0].shape[1]), dtype=np.float32)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return torch.from_numpy(out), torch.tensor(lengths, dtype=torch.long)


def _up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


@dataclass(frozen=True, slots=True)
class Budget:
    """Largest size of a batch: padded positions (longest source + longest target, times examples), and examples."""

    tokens: int
    examples: int | None = None

    def split(
        self, order: np.ndarray, source: np.ndarray, target: np.ndarray, multiple: int = 1
    ) -> Iterator[np.ndarray]:
        """Cut an order of examples into consecutive batches within the budget (one example always fits).

        Batches of more than `multiple` examples have a multiple of them, all but the last.
        """
        start, most = 0, min(self.examples or len(order), max(1, self.tokens))
        while start < len(order):
            first = order[start]
            ahead = order[start : start + min(most, self.tokens // max(1, source[first] + target[first]) + 1)]
            count = self._fitting(source[ahead], target[ahead])
            if multiple < count < len(order) - start:
                count -= count % multiple
            yield order[start : start + count]
            start += count

    def _fitting(self, source: np.ndarray, target: np.ndarray) -> int:
        """Number of examples, from the first on, that fit into one batch."""
        longest = np.maximum.accumulate(source) + np.maximum.accumulate(target)
        over = longest * np.arange(1, len(longest) + 1) > self.tokens
        return max(1, int(over.argmax())) if over.any() else len(longest)


def shares(rows: np.ndarray, sizes: np.ndarray, count: int) -> list[np.ndarray]:
    """Cut a batch into at most `count` batches of about equal size, examples of similar size together."""
    rows = rows[np.argsort(sizes[rows], kind="stable")]
    total = np.cumsum(sizes[rows])
    cuts = np.searchsorted(total, total[-1] * np.arange(1, count) / count, side="right")
    if len(rows) >= EXAMPLES:
        cuts = (cuts + SHARE // 2) // SHARE * SHARE
    return [part for part in np.split(rows, cuts) if len(part)]


def sorted_batches(source: np.ndarray, target: np.ndarray, budget: Budget) -> list[np.ndarray]:
    """Batches of all examples, longest sources first, so that memory runs out at once or never."""
    return list(budget.split(np.lexsort((target, source))[::-1], source, target))


def training_batches(
    source: np.ndarray,
    target: np.ndarray,
    budget: Budget,
    *,
    seed: int,
    epoch: int,
    weights: np.ndarray | None = None,
) -> list[np.ndarray]:
    """One epoch's batches of example indices, of similar lengths inside, in random order.

    Lengths are jittered before sorting so that neighbours differ from epoch to epoch. With `weights`
    (a mixture) the epoch draws as many examples as there are, with replacement, in proportion.
    """
    rng = np.random.default_rng([seed, epoch])
    size = len(source)
    if weights is None:
        chosen = rng.permutation(size)
    else:
        chosen = rng.choice(size, size, p=weights / weights.sum())
    # Sort by source in steps of a tenth, within a step by target, alternately up and down: both need little padding.
    coarse = np.floor(np.log1p(source[chosen] + rng.uniform(0, 1, size)) / 0.1)
    fine = target[chosen] + rng.uniform(0, 1, size)
    order = chosen[_sorted_within(coarse.astype(np.int16), np.where(coarse % 2 == 0, fine, -fine))]
    batches = list(budget.split(order, source, target, EXAMPLES))
    return [batches[i] for i in rng.permutation(len(batches))]


def _sorted_within(groups: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The order of `np.lexsort((keys, groups))`, in half the time, for few groups."""
    by_group = np.argsort(groups, kind="stable")
    cuts = np.flatnonzero(np.diff(groups[by_group])) + 1
    each = np.split(by_group, cuts)
    return np.concatenate([rows[np.argsort(keys[rows], kind="stable")] for rows in each])
