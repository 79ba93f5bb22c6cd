"""Freezing and gradual unfreezing of parts of a network (Howard & Ruder 2018)."""

from __future__ import annotations

from collections.abc import Sequence

from sourcewise.config import UnfreezeConfig
from sourcewise.errors import RequestError
from sourcewise.model.parts import PARTS
from sourcewise.model.protocol import Network


def freeze(network: Network, parts: Sequence[str]) -> None:
    """Freeze these parts of a network. Raises RequestError for a missing part."""
    for part in parts:
        if part not in PARTS:
            raise RequestError(f"train.freeze: {part!r} is not one of {', '.join(PARTS)}")
        found = [info.parameter for info in network.parts() if info.part == part]
        if not found:
            raise RequestError(f"train.freeze: this network has no {part}")
        for parameter in found:
            parameter.requires_grad_(False)


class Unfreezing:
    """The epoch from which each parameter is trained; it has no state, so that a resumed training is the same."""

    def __init__(self, parts: Sequence[str], config: UnfreezeConfig) -> None:
        """`parts` has the part of each trained parameter. Raises RequestError for a frozen or missing part."""
        begins = config.begins
        self.begins = [begins.get(part) for part in parts]
        self.rate = config.rate
        for part in begins:
            if part not in parts:
                raise RequestError(f"train.unfreeze.{part}: is frozen for good (train.freeze), or not in this network")
        if begins and not any(self.factors(0.0) or []):
            raise RequestError("train.unfreeze: nothing would learn at first; leave a part out, or give it epoch 0")

    def factors(self, epochs: float) -> list[float] | None:
        """Factor on each parameter's learning rate after so many epochs: 0 before its part is unfrozen.

        None if all parts are trained from the start.
        """
        if all(begin is None for begin in self.begins):
            return None
        return [1.0 if begin is None else self.rate if epochs >= begin else 0.0 for begin in self.begins]
