"""Which checkpoint of a training is kept, as far as it is known: by which figure, and what was restored at its end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

LOWER = frozenset(
    {"loss", "wer", "cer", "ter", "per", "mer", "wil", "eer", "der", "nll", "nats", "perplexity", "ppl", "bpc"}
    | {"error", "errors", "distance", "mae", "mse", "rmse"}
)
HIGHER = frozenset(
    {"bleu", "sacrebleu", "chrf", "rouge", "meteor", "accuracy", "acc", "precision", "recall", "em", "match", "comet"}
    | {"bertscore", "bleurt", "cider", "spice", "unique", "bits"}
)


@dataclass(frozen=True, slots=True)
class Keeping:
    """The figure that picks a checkpoint, whether the higher is taken, and what for; and (step, validation loss) of
    the evaluations of one set, in their order.
    """

    metric: str = ""
    higher: bool = False
    used: str = ""
    losses: Sequence[tuple[int, float]] = ()

    about = "which checkpoint is kept"


def better(metric: str) -> Literal["higher", "lower", ""]:
    """Which values of a figure are the better ones, by the words in its name; "" where these do not tell."""
    words = [re.sub(r"\d+$|[lw]sum$", "", word) or word for word in re.split(r"[^a-z0-9]+", metric.lower())]
    lower = any(word in LOWER for word in words)
    higher = any(word in HIGHER or word.startswith(("rouge", "bleu", "chrf")) or word == "f" for word in words)
    return "lower" if lower and not higher else "higher" if higher and not lower else ""
