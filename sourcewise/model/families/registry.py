"""The families of networks: how each is made from a recipe, and read from and written to a folder.

To add one: a body (`model/network.py` says what that is), the functions of `Family`, a line in FAMILIES.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sourcewise.config import ModelConfig
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.model.families import bart, decoder_only, recurrent, t5
from sourcewise.model.weights.weight_files import Weights


@dataclass(frozen=True, slots=True)
class Family:
    """What the rest of the house needs to know of a family; bodies are `Any`, each family knows its own."""

    body: type
    model_types: tuple[str, ...]  # of config.json
    make: Callable[[ModelConfig, Tokenizer, bool], Any]  # recipe, tokenizer, whether it reads features → a fresh body
    read: Callable[[dict[str, Any], Weights], Any]  # config.json, weights → body
    write: Callable[[Any], tuple[dict[str, Any], dict[str, Tensor]]]  # body → config.json, fp32 weights on the CPU
    # What in a folder of its model_types it does not compute, in words, or nothing: config.json, weights.
    foreign: Callable[[dict[str, Any], Weights], str] = lambda config, weights: ""


FAMILIES = {
    "t5": Family(t5.Transformer, t5.MODEL_TYPES, t5.make, t5.read, t5.write, t5.foreign),
    "bart": Family(bart.Bart, bart.MODEL_TYPES, bart.make, bart.read, bart.write, bart.foreign),
    "rnn": Family(recurrent.Recurrent, recurrent.MODEL_TYPES, recurrent.make, recurrent.read, recurrent.write),
    "decoder": Family(
        decoder_only.DecoderOnly, decoder_only.MODEL_TYPES, decoder_only.make, decoder_only.read, decoder_only.write
    ),
}


def of_body(body: Any) -> Family:
    """The family of a body."""
    return next(family for family in FAMILIES.values() if type(body) is family.body)


def of_model_type(model_type: str | None) -> Family | None:
    """The family that reads folders of this `model_type`; None: a stranger, for the Hugging Face adapter."""
    return next((family for family in FAMILIES.values() if model_type in family.model_types), None)
