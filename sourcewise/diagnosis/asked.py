"""How a model is asked for its outputs: the settings of its search, and what its folder says of sources."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sourcewise.data.encoding import ExampleSet
from sourcewise.errors import RequestError
from sourcewise.model.protocol import Network
from sourcewise.model.weights.checkpoint import find_folder, model_folder


@dataclass(frozen=True, slots=True)
class Said:
    """Somebody's own generation beside the network that is trained: tokens of the references, how often they are
    there, how often the network has them at more than even odds behind the true tokens, and how many outputs have them.

    Of the tokens of an output, as long as those before it are those of its reference: their nats by the network, the
    nats of drawn ones, both the mean of outputs, in how many all are the likeliest, `outputs` in all, and how many
    standard errors the two means are apart.
    """

    tokens: Sequence[tuple[int, int, int, int]] = ()
    nats: float = math.nan
    drawn: float = math.nan
    likeliest: int = 0
    outputs: int = 0
    apart: float = 0.0


@dataclass(frozen=True)
class Asking:
    """A set, the fewest and most tokens of its outputs, and the prefixes that the model's folder names for tasks.

    `suppressed` are ids that the search may not say, in words where that is set; `barred` how many tokens in a row may
    not come twice, or not from the source, and by how much a token that came is weighed down, by the setting's name.
    `led` says why outputs are made with the references before the evaluator's eyes, where they are, `drawn` how it
    shows that they are drawn at random.
    """

    encoded: ExampleSet
    shortest: int = 0
    longest: int = sys.maxsize
    prefixes: Sequence[str] = ()
    told: str = ""  # where the length is set, in words; "": the settings of our own search, or of a folder

    suppressed: Mapping[int, str] = field(default_factory=dict)
    said: Said | None = None
    barred: Mapping[str, float] = field(default_factory=dict)
    led: str = ""
    drawn: str = ""

    about = "how outputs are asked for"


TWICE, OF_SOURCE, PENALTY = "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "repetition_penalty"


def suppressed_by(network: Network) -> dict[int, str]:
    """The ids that a network's generation settings let no output have, and which of these says so."""
    return dict.fromkeys(network.defaults.suppressed, "suppress_tokens or bad_words_ids of the generation settings")


def pads_on_the_left(name: str) -> bool:
    """Whether a folder's tokenizer_config.json says so."""
    return _told(name, "tokenizer_config.json").get("padding_side") == "left"


def _told(name: str, file: str) -> dict[str, Any]:
    """What a file of a model's folder says; {} where there is none."""
    if not name or not Path(name).expanduser().is_dir():
        return {}
    try:
        found = json.loads((model_folder(find_folder(name)) / file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RequestError):
        return {}
    return found if isinstance(found, dict) else {}


def prefixes_of(name: str) -> list[str]:
    """The task prefixes in a folder's config.json (`task_specific_params`, `prefix`); none where there is no folder."""
    told = _told(name, "config.json")
    tasks = told.get("task_specific_params") or {}
    params = [told, *(each for each in tasks.values() if isinstance(each, dict))] if isinstance(tasks, dict) else [told]
    return [each["prefix"] for each in params if isinstance(each.get("prefix"), str) and each["prefix"].strip()]
