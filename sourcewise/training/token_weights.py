"""Weights of target tokens by how rare they are, so that frequent ones do not drown the others."""

from __future__ import annotations

from itertools import chain

import numpy as np
import torch
from torch import Tensor

from sourcewise.config import TrainConfig
from sourcewise.data.encoding import ExampleSet


def token_weights(examples: ExampleSet, vocabulary: int, train: TrainConfig) -> Tensor | None:
    """(vocabulary,) float32 weights of the training set's target tokens; None: all count alike.

    Of a token that occurs n times in an epoch: 1 / n, or (1 − β) / (1 − β^n), the inverse of its effective number (Cui
    et al. 2019). Scaled so that an epoch's target tokens weigh 1 on average: the learning rate keeps its meaning. A
    token that never occurs weighs what one does that occurs once.
    """
    if train.token_weights == "none":
        return None
    counts = _counts(examples, vocabulary)
    often = np.maximum(counts, 1)
    if train.token_weights == "inverse_frequency":
        weights = 1 / often
    else:
        weights = (1 - train.effective_beta) / -np.expm1(often * np.log(train.effective_beta))
    return torch.from_numpy(weights * counts.sum() / (weights * counts).sum()).float()


def _counts(examples: ExampleSet, vocabulary: int) -> np.ndarray:
    """How often an epoch is expected to show each token: (vocabulary,) float64. A mixture draws by its weights."""
    ids = np.fromiter(chain.from_iterable(examples.targets), np.int64, int(examples.target_lengths.sum()))
    drawn = np.ones(len(examples)) if examples.weights is None else examples.weights
    drawn = np.repeat(drawn * len(examples) / drawn.sum(), examples.target_lengths)
    return np.bincount(ids, weights=drawn, minlength=vocabulary)
