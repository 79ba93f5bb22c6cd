"""Noise on source texts, drawn anew each epoch: tokens are dropped, masked or swapped.

It regularises the reading of the source (Lample et al. 2018, section 4.1; Xie et al. 2017 for masking). The end of text
stays in place, and no source loses its last token.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sourcewise.config import TextNoiseConfig
from sourcewise.data.batches import TOKENS, Batch, pad

STREAM = 7  # of an example's random draws; augmentation of features has another


class TextNoise:
    """Adds noise to the sources of a batch; the draws depend on (seed, epoch, example), not on the batch."""

    def __init__(self, config: TextNoiseConfig, unknown: int, pad_id: int, seed: int) -> None:
        """`unknown` is the id that replaces masked tokens."""
        self.config, self.unknown, self.pad_id, self.seed = config, unknown, pad_id, seed

    @property
    def active(self) -> bool:
        """Whether any noise is on."""
        return bool(self.config.drop or self.config.mask or self.config.swap)

    def __call__(self, batch: Batch, epoch: int) -> Batch:
        """The batch with noisy sources; features, and prompts beside them, are unchanged."""
        source = batch.source
        if source.features is not None or source.tokens is None or source.token_lengths is None:
            return batch
        rows = [
            self.changed(ids[:length], np.random.default_rng([self.seed, epoch, index, STREAM]))
            for ids, length, index in zip(
                source.tokens.numpy(), source.token_lengths.tolist(), batch.indices, strict=True
            )
        ]
        tokens, lengths = pad(rows, self.pad_id, TOKENS)
        return replace(batch, source=replace(source, tokens=tokens, token_lengths=lengths))

    def changed(self, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One source (tokens,), its end of text last: neighbours swapped, then tokens dropped, then masked."""
        words, end = ids[:-1].copy(), ids[-1:]
        if not len(words):
            return ids
        swap, drop, mask = rng.random((3, len(words)))
        place = 0
        while place < len(words) - 1:
            if swap[place] < self.config.swap:
                words[[place, place + 1]] = words[[place + 1, place]]
                place += 1  # a token moves at most once
            place += 1
        words[mask < self.config.mask] = self.unknown
        kept = drop >= self.config.drop
        if not kept.any():
            kept[int(drop.argmax())] = True
        return np.concatenate((words[kept], end))
