"""Weights of rare target tokens, and oversampling of examples that have some, so that frequent ones do not dominate."""

from __future__ import annotations

from itertools import chain

import numpy as np
import torch
from torch import Tensor

from sourcewise.config import TrainConfig
from sourcewise.data.encoding import ExampleSet
from sourcewise.errors import RequestError


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


def repeat_factors(examples: ExampleSet, below: float) -> np.ndarray:
    """Repeat factors (examples,), relative to examples of frequent target tokens (Gupta et al. 2019).

    A token that occurs in a share f of the targets has the factor max(1, √(below / f)); an example has the largest
    factor of its tokens.
    """
    rows = np.repeat(np.arange(len(examples)), examples.target_lengths)
    ids = np.concatenate([np.asarray(target, dtype=np.int64) for target in examples.targets])
    pairs = np.unique(np.stack([rows, ids]), axis=1)  # a token counts once per example
    shares = np.bincount(pairs[1]) / len(examples)
    factors = np.sqrt(np.maximum(1.0, below / np.maximum(shares, 1e-12)))
    found = np.ones(len(examples))
    np.maximum.at(found, pairs[0], factors[pairs[1]])
    return found


def resample(examples: ExampleSet, below: float) -> None:
    """Set the `weights` of a training set: repeat factors, times those of a mixture's rates.

    Raises RequestError for plain text, whose targets are drawn anew each epoch.
    """
    if not below:
        return
    if any(part.drawn or part.dataset.windows for part in examples.parts):
        problem = "the targets of plain text and of streams are other ones in each epoch"
        raise RequestError(f"train.resample_below: {problem}; set 0")
    factors = repeat_factors(examples, below)
    examples.weights = factors if examples.weights is None else factors * examples.weights
