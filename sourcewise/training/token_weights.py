"""Weights of target tokens by rarity, so that frequent ones do not dominate the loss."""

from __future__ import annotations

from itertools import chain

import numpy as np
import torch
from torch import Tensor

from sourcewise.config import TrainConfig
from sourcewise.data.encoding import ExampleSet


def token_weights(examples: ExampleSet, vocabulary: int, train: TrainConfig) -> Tensor | None:
    """Weights (vocabulary,) float32 of the training set's target tokens; None: all equal.

    A token that occurs n times in an epoch has 1 / n, or (1 − β) / (1 − β^n), the inverse of its effective number (Cui
    et al. 2019). The mean weight of an epoch's target tokens is 1, so that the learning rate keeps its meaning. Tokens
    that never occur have the weight of one occurrence.
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
    """Expected number of occurrences of each token in an epoch, (vocabulary,) float64, by the weights of a mixture."""
    ids = np.fromiter(chain.from_iterable(examples.targets), np.int64, int(examples.target_lengths.sum()))
    drawn = np.ones(len(examples)) if examples.weights is None else examples.weights
    drawn = np.repeat(drawn * len(examples) / drawn.sum(), examples.target_lengths)
    return np.bincount(ids, weights=drawn, minlength=vocabulary)
