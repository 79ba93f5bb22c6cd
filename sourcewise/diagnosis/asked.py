"""How a model is asked for its outputs: the settings of its search, and what its folder says of sources."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sourcewise.data.encoding import ExampleSet
from sourcewise.errors import RequestError
from sourcewise.model.weights.checkpoint import find_folder, model_folder


@dataclass(frozen=True)
class Asking:
    """A set, the fewest and most tokens of its outputs, and the prefixes that the model's folder names for tasks."""

    encoded: ExampleSet
    shortest: int
    longest: int
    prefixes: Sequence[str] = ()
    told: str = ""  # where the length is set, in words; "": the settings of our own search, or of a folder

    about = "how outputs are asked for"


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
