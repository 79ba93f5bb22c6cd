"""A Dataset as ids and lengths: texts are tokenised once, batches are laid out on demand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sourcewise.config import DataConfig
from sourcewise.data.batches import FRAMES, IGNORED, TOKENS, Batch, Source, pad, pad_features
from sourcewise.data.examples import Dataset
from sourcewise.data.tokenizer import Tokenizer

Augment = Callable[[np.ndarray], np.ndarray]


class Encoded:
    """The examples of a set as ids.

    `source_lengths` and `target_lengths` are (examples,) int64: tokens, or frames for a feature source, after
    cutting to `max_source`, `max_frames` and `max_target`; a cut text keeps its end of text.
    `sources` and `targets` hold the ids; for features `sources` are the prompts, or None where no example has one.
    """

    def __init__(self, dataset: Dataset, tokenizer: Tokenizer, data: DataConfig) -> None:
        self.dataset = dataset
        self.tokenizer = tokenizer
        self.max_frames = data.max_frames
        texts = [example.source for example in dataset]
        plain = bool(dataset.dims) and not any(texts)
        self.sources = None if plain else tokenizer.encode_batch(texts, data.max_source)
        self.targets = tokenizer.encode_batch([example.target for example in dataset], data.max_target)
        self.target_lengths = np.array([len(ids) for ids in self.targets], dtype=np.int64)
        if dataset.dims:
            frames = np.array([example.frames for example in dataset], dtype=np.int64)
            self.source_lengths = np.minimum(frames, data.max_frames)
        else:
            assert self.sources is not None
            self.source_lengths = np.array([len(ids) for ids in self.sources], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(
        self, indices: Sequence[int] | np.ndarray, augment: Augment | None = None, *, coarse: bool = False
    ) -> Batch:
        """The examples at these positions, padded; `augment` changes each (frames, dims) matrix after cutting.

        `coarse` rounds the widths up, so that a training sees few shapes.
        """
        chosen = [int(i) for i in indices]
        labels, _ = pad([self.targets[i] for i in chosen], IGNORED, TOKENS if coarse else 1)
        return Batch(self.source(chosen, augment, coarse=coarse), labels, chosen)

    def source(
        self, indices: Sequence[int] | np.ndarray, augment: Augment | None = None, *, coarse: bool = False
    ) -> Source:
        """The sources alone, as in `batch`."""
        source = Source()
        if self.sources is not None:
            rows = [self.sources[int(i)] for i in indices]
            source.tokens, source.token_lengths = pad(rows, self.tokenizer.pad_id, TOKENS if coarse else 1)
        if self.dataset.dims:
            matrices = [self.dataset.features(int(i))[: self.max_frames] for i in indices]
            if augment is not None:
                matrices = [augment(matrix) for matrix in matrices]
            source.features, source.frames = pad_features(matrices, FRAMES if coarse else 1)
        return source
