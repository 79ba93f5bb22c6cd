"""A step of a loop that was watched, and what is written of a loop's steps."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from sourcewise.diagnosis.observed import Given
from sourcewise.integrations.loop.watching import Watching

COSINES = 1.001  # the largest there is, rounded


@dataclass
class Seen:
    """A step that was watched: its number, its loss as the loop has it, and its batch."""

    number: int
    loss: Any
    batch: Any

    @property
    def value(self) -> float:
        """The loss; NaN where it is no number."""
        try:
            return float(self.loss)
        except (TypeError, ValueError, RuntimeError):
            return math.nan

    def nats(self, seen: Watching) -> float:
        """Nats of a label that counts, by the outputs; NaN where these do not tell."""
        said = [each for call in seen.saying for each in call.said.values()]
        tokens = sum(each.tokens for each in said)
        return float(sum(each.nats.sum() for each in said)) / tokens if tokens else math.nan

    def scale(self, seen: Watching) -> float:
        """What the loss was multiplied by before backward(); NaN where the outputs do not tell."""
        weighed = [each.weighed for call in seen.saying for each in call.said.values()]
        return sum(weighed) / self.value if weighed and self.value > 0 else math.nan

    def counted(self, seen: Watching) -> tuple[int, int]:
        """Labels that count, and all."""
        said = [each for call in seen.saying for each in call.said.values()]
        return sum(each.tokens for each in said), sum(each.labels.numel() for each in said)

    def given(self, seen: Watching) -> Given:
        """What the loss is given, by most of the outputs."""
        forms = Counter(each.form for call in seen.saying for each in call.said.values())
        form = forms.most_common(1)[0][0] if forms else ""
        if form == "softmax" and self.value > 0:
            return "again"  # NLLLoss of probabilities is negative
        return "softmax" if form == "logits" and self.value < 0 else form

    def temperature(self, seen: Watching) -> float:
        """What the loss divides the outputs by; 1.0 where these lie between -1 and 1, as cosines do."""
        for call in seen.saying:
            for path, each in call.said.items():
                scaled = each.temperature > 1 or float(call.outputs[path].detach().abs().max()) > COSINES
                return each.temperature if scaled else 1.0
        return 1.0

    def smoothing(self, seen: Watching) -> float:
        """The share of a label that the loss spreads over the vocabulary."""
        return max((each.smoothing for call in seen.saying for each in call.said.values()), default=0.0)


@dataclass
class History:
    """The last step, and what was written of it: figures and findings, as a Trainer's state has them."""

    global_step: int = 0
    log_history: list[dict[str, Any]] = field(default_factory=list)
