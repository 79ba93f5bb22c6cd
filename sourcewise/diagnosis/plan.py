"""How a training is to go, whoever runs it: what rules over its data, its wiring and its course are told of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

Setting = tuple[str, float]  # what it is called where it was set, and its value


@dataclass(frozen=True, slots=True)
class Reached:
    """The highest learning rate of so many steps, and the highest that its schedule ever gives."""

    highest: float
    ever: float
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Steps, where it begins from, what it does to weights; what is not known stays as it is here."""

    steps: int = 0
    epochs: float = 0.0
    warmup: int = 0  # steps
    fresh: bool = True  # from random weights
    trained: bool = False  # whether it is over already: what its weights have not learned by now is a fault
    loaded: Collection[str] = ()  # parts that are not random all the same
    rate: float = 0.0  # at its peak, of the weights that decay most
    weight_decay: float = 0.0
    reached: Reached | None = None  # how far its rate comes, where its schedule tells
    no_rate: str = ""  # why no rate is known before the first step, where none is
    standing: str = ""  # why no weight will ever change, where that is so
    clip: float = 1.0  # norm that gradients are clipped to; 0: never
    dropout: Setting | None = None
    taken: Sequence[tuple[str, str, float]] = ()  # settings that take something away: kind, name, value
    first_moment: Setting | None = None  # of an Adam: its first decay
    fed_back: bool = False  # whether the decoder is fed more of its own words from step to step
    past: Collection[str] = ()  # parts that its sources go past
    best: str = "bleu"  # the figure that picks the best checkpoint
    half: str = ""  # what is computed in float16, in words, where something is
    other_loss: str = ""  # why its loss is no cross-entropy, where it is none


UNKNOWN = Plan()
