"""What the rules over a trained network are given: the network, a set to look at it with, and what that shows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sourcewise.data.batches import Batch
from sourcewise.data.encoding import ExampleSet
from sourcewise.diagnosis.measures.reading import Distinct, Gains, Gaze, measure_gains, measure_gaze, measure_memory
from sourcewise.diagnosis.rule import CannotTell
from sourcewise.model.protocol import Network


@dataclass(frozen=True)
class Trained:
    """A trained network of the protocol, ours or a stranger's, in eval mode; each measure is made when asked for.

    `encoded` is the set it is looked at with, `batch` a dozen of its examples.
    """

    network: Network
    encoded: ExampleSet
    batch: Batch

    about = "the trained network"
    learned = True

    @cached_property
    def memory(self) -> Distinct:
        """How far the vectors of its memory are apart. Raises CannotTell."""
        apart = measure_memory(self.network, self.batch)
        if apart is None:
            raise CannotTell("memory alike", "no encoder's outputs, or fewer than 4 examples or memory positions")
        return apart

    @cached_property
    def gaze(self) -> Gaze:
        """Where its cross-attention looks. Raises CannotTell."""
        gaze = measure_gaze(self.network, self.batch)
        if gaze is None:
            raise CannotTell("cross-attention", "there is none, or it has fewer than 4 memory positions or tokens")
        return gaze

    @cached_property
    def gains(self) -> Gains | None:
        """What its tokens gain from their sources; None where no two sources differ."""
        return measure_gains(self.network, self.encoded)
