"""What the rules over a trained network are given: the network, a set to look at it with, and what that shows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sourcewise.data.batches import Batch
from sourcewise.data.encoding import ExampleSet
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.diagnosis.measures.reading import Distinct, Gains, Gaze, measure_gains, measure_gaze, measure_memory
from sourcewise.diagnosis.rule import CannotTell
from sourcewise.model.protocol import Network


@dataclass(frozen=True)
class Looked:
    """A trained network of the protocol, ours or a stranger's, in eval mode; each measure is made when asked for.

    `encoded` is the set it is looked at with, `batch` a dozen of its examples; `bypass` says that the memory is what
    the bridge gives because its recipe asks for that.
    """

    network: Network
    tokenizer: Tokenizer
    encoded: ExampleSet
    batch: Batch
    bypass: bool = False

    @cached_property
    def memory(self) -> Distinct:
        """How far the vectors of its memory are apart. Raises CannotTell."""
        apart = measure_memory(self.network, self.batch)
        if apart is None:
            raise CannotTell("memory alike (MEM001, MEM002): no encoder's outputs, or fewer than 4 examples or slots")
        return apart

    @cached_property
    def gaze(self) -> Gaze:
        """Where its cross-attention looks. Raises CannotTell."""
        gaze = measure_gaze(self.network, self.batch)
        if gaze is None:
            raise CannotTell("cross-attention (ATT001, ATT002): there is none, or it has fewer than 4 slots or tokens")
        return gaze

    @cached_property
    def gains(self) -> Gains | None:
        """What its tokens gain from their sources; None where no two sources differ."""
        return measure_gains(self.network, self.encoded)
