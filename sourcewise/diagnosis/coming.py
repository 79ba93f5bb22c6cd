"""How the batches of a training come: what rules over their order are given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class Batched:
    """A batch as it came: its examples, and the sums over these of a few figures and of their squares, (figures,)."""

    step: int
    size: int
    sums: np.ndarray
    squares: np.ndarray
    strength: float = math.nan  # of features: the root mean square of their frames


@dataclass(frozen=True)
class Coming:
    """Batches in the order in which they came, an even choice of them; `first` are keys of the first ones, all,
    which are the same for batches of the same examples.

    The first `lengths` of the figures are lengths. `grouped` says that batches of one length are asked for.
    """

    batches: Sequence[Batched] = ()
    lengths: int = 2
    grouped: bool = False
    first: Sequence[int] = field(default_factory=list)

    about = "the order of the batches"
