"""Oversampling of examples with rare target tokens, so that frequent ones do not dominate."""

from __future__ import annotations

import numpy as np

from sourcewise.data.encoding import ExampleSet
from sourcewise.errors import RequestError


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
    if any(part.at(1) is not part for part in examples.parts):
        raise RequestError("train.resample_below: the targets of plain text are drawn anew each epoch; set 0")
    factors = repeat_factors(examples, below)
    examples.weights = factors if examples.weights is None else factors * examples.weights
