"""Parts of a network that begin to learn later, perhaps more slowly (Howard & Ruder 2018: gradual unfreezing)."""

from __future__ import annotations

from collections.abc import Sequence

from sourcewise.config import UnfreezeConfig
from sourcewise.errors import RequestError


class Unfreezing:
    """When each parameter begins to learn; its state is the epoch alone, so that a resumed training is the same."""

    def __init__(self, parts: Sequence[str], config: UnfreezeConfig) -> None:
        """`parts` of the parameters that learn. Raises RequestError for a part that is frozen or not there."""
        begins = {part: epoch for part, epoch in config.model_dump(exclude={"rate"}).items() if epoch is not None}
        self.begins = [begins.get(part) for part in parts]
        self.rate = config.rate
        for part in begins:
            if part not in parts:
                raise RequestError(f"train.unfreeze.{part}: is frozen for good (train.freeze), or not in this network")
        if begins and not any(self.factors(0.0)):
            raise RequestError("train.unfreeze: nothing would learn at first; leave a part out, or give it epoch 0")

    @property
    def active(self) -> bool:
        """Whether any part waits."""
        return any(begin is not None for begin in self.begins)

    def factors(self, epochs: float) -> list[float]:
        """What each parameter's learning rate is multiplied by after so many epochs: 0 where it still waits."""
        return [1.0 if begin is None else self.rate if epochs >= begin else 0.0 for begin in self.begins]
