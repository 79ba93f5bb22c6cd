"""What a data set shows by itself, before there is a recipe: the rules over data, and a second set held against it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sourcewise.config import DataConfig, Recipe
from sourcewise.data.readers.conversations import are_conversations
from sourcewise.data.readers.manifest_rows import are_rows
from sourcewise.data.readers.pairs import HUB
from sourcewise.data.readers.tables import endings
from sourcewise.data.request import SourceRequest
from sourcewise.diagnosis import ours
from sourcewise.diagnosis.answer import Piece
from sourcewise.diagnosis.course import Course
from sourcewise.diagnosis.outputs import Outputs
from sourcewise.diagnosis.pairs import Pairs
from sourcewise.diagnosis.rules import absent, look
from sourcewise.diagnosis.trained import Trained
from sourcewise.diagnosis.wiring import Wiring
from sourcewise.errors import FaultyData, RequestError
from sourcewise.training.setup import set_up

# No network is asked for: a small one stands in the recipe, so that the data are read as a training reads them.
_SMALL = {"d_model": 8, "d_ff": 8, "heads": 1, "encoder_layers": 1, "decoder_layers": 1}


def is_data(name: str | Path) -> bool:
    """Whether a name means a set of examples, not a model: a table's file, or hub:NAME."""
    path = Path(name)
    if str(name).startswith(HUB) or are_rows(path):
        return True
    return path.is_file() and (path.suffix.lower() in endings() or are_conversations(str(name)))


def of_data(train: str | Path, valid: str | Path | None, reading: Mapping[str, Any]) -> list[Piece]:
    """What the rules over data find in a set, and in another one beside it. Raises RequestError."""
    words = {name: reading.get(name) for name in ("features", "source", "target", "prefix")}
    request = SourceRequest(DataConfig(), **words)
    sets = {"train": train} | ({"valid": valid} if valid is not None else {})
    opened = {use: request.config(str(path)) for use, path in sets.items()}
    recipe = Recipe(name="data", data=DataConfig.model_validate(opened), model=_SMALL)  # type: ignore[arg-type]
    try:
        setup = set_up(recipe)
    except FaultyData as fault:
        return [look(Pairs(None, refused=str(fault))), *_without_model()]
    pairs = ours.pairs_of(setup, ours.plan_of(recipe, setup.train))
    found = look(pairs, *ours.held_beside(pairs))
    size = f"{len(setup.train):,} examples of {train}"
    return [Piece(found.findings, found.not_checked, [size]), *_without_model()]


def _without_model() -> list[Piece]:
    why = "there is no model: these are data alone"
    return [Piece((), [absent(each, why) for each in (Wiring, Course, Trained, Outputs)])]


def check_words(words: Mapping[str, Any]) -> None:
    """Raises RequestError for options of a model's outputs."""
    said = next((name for name, value in words.items() if value is not None), None)
    if said is not None:
        raise RequestError(f"{said}: goes with a model; these are data alone")
