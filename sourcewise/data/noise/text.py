"""Noise on source texts, drawn anew each epoch: tokens dropped, masked, or out of place.

A decoder that is told a little less has less to lean on but the rest of its source (Lample et al. 2018, section 4.1;
Xie et al. 2017 for masking). The end of text stays where it is, and no source loses its last word.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sourcewise.config import TextNoiseConfig
from sourcewise.data.batches import TOKENS, Batch, pad

STREAM = 7  # of the draws of an example: augmentation of features has its own


class TextNoise:
    """Changes the sources of a batch; the draw belongs to (seed, epoch, example), not to the batch."""

    def __init__(self, config: TextNoiseConfig, unknown: int, pad_id: int, seed: int) -> None:
        """`unknown` stands in for what is masked."""
        self.config, self.unknown, self.pad_id, self.seed = config, unknown, pad_id, seed

    @property
    def active(self) -> bool:
        """Whether anything would change."""
        return bool(self.config.drop or self.config.mask or self.config.swap)

    def __call__(self, batch: Batch, epoch: int) -> Batch:
        """The batch with changed sources; features, and prompts beside them, stay as they are."""
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
                place += 1  # a token moves once
            place += 1
        words[mask < self.config.mask] = self.unknown
        kept = drop >= self.config.drop
        if not kept.any():
            kept[int(drop.argmax())] = True
        return np.concatenate((words[kept], end))
