"""The registry of architectures: how each is made from a recipe, and read from and written to a folder.

To add one, write a body (see `model/network.py`) and the functions of `Family`, and add a line to FAMILIES.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sourcewise.config import ModelConfig
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.model.families import bart, decoder_only, recurrent, t5
from sourcewise.model.weights.interchange import Pairs
from sourcewise.model.weights.weight_files import Weights


@dataclass(frozen=True, slots=True)
class Family:
    """The functions of an architecture; bodies are `Any`, since each family has its own class."""

    body: type
    model_types: tuple[str, ...]  # of config.json
    make: Callable[[ModelConfig, Tokenizer, bool], Any]  # recipe, tokenizer, whether it reads features → a fresh body
    read: Callable[[dict[str, Any], Weights], Any]  # config.json, weights → body
    write: Callable[[Any], tuple[dict[str, Any], dict[str, Tensor]]]  # body → config.json, fp32 weights on the CPU
    named: Callable[[Any], Pairs]  # body → every tensor or part of one, with its name in a folder
    # config.json, weights → features of such a folder that the family does not compute, in words; may be empty.
    foreign: Callable[[dict[str, Any], Weights], str] = lambda config, weights: ""


def _own(body: Any) -> Pairs:
    """The tensors of a body whose folders have our names."""
    return body.named_parameters()  # type: ignore[no-any-return]


FAMILIES = {
    "t5": Family(t5.Transformer, t5.MODEL_TYPES, t5.make, t5.read, t5.write, t5.named, t5.foreign),
    "bart": Family(bart.Bart, bart.MODEL_TYPES, bart.make, bart.read, bart.write, bart.named, bart.foreign),
    "rnn": Family(recurrent.Recurrent, recurrent.MODEL_TYPES, recurrent.make, recurrent.read, recurrent.write, _own),
    "decoder": Family(
        decoder_only.DecoderOnly,
        decoder_only.MODEL_TYPES,
        decoder_only.make,
        decoder_only.read,
        decoder_only.write,
        _own,
    ),
}


def of_body(body: Any) -> Family | None:
    """The family of a body; None: it is transformers' own model."""
    return next((family for family in FAMILIES.values() if type(body) is family.body), None)


def of_model_type(model_type: str | None) -> Family | None:
    """The family that reads folders of this `model_type`; None: transformers reads it."""
    return next((family for family in FAMILIES.values() if model_type in family.model_types), None)
