"""What the rules over a trained network are given: the network, and a set to look at it with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sourcewise.data.batches import Batch
    from sourcewise.data.encoding import Encoded
    from sourcewise.data.tokenizer import Tokenizer
    from sourcewise.model.protocol import Network


@dataclass(frozen=True, slots=True)
class Looked:
    """A trained network of the protocol, ours or a stranger's, in eval mode.

    `encoded` is the set it is looked at with, `batch` a dozen of its examples; `bypass` says that the memory is what
    the bridge gives because its recipe asks for that.
    """

    network: Network
    tokenizer: Tokenizer
    encoded: Encoded
    batch: Batch
    bypass: bool = False
