"""Options of a comparison: the variants of a recipe and the seeds."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field, field_validator

from sourcewise.config.options import Options, RunFigure, Seed

NAME = r"\w[\w.-]*"  # of a variant, which names a folder


class CompareConfig(Options):
    """The section `compare` of a recipe."""

    variants: dict[str, dict[str, Any] | None] = Field(
        description="name of a variant → the keys it sets; the others are compared with the first"
    )
    seeds: Annotated[list[Seed], Field(min_length=1)] = Field(
        [0, 1, 2], description="each variant is trained with each of them"
    )
    metric: RunFigure | None = Field(None, description="the figure that decides (default: train.best)")

    @field_validator("variants")
    @classmethod
    def _some(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not value:
            raise ValueError("names no variant; give each a name and the keys it sets")
        odd = next((name for name in value if not re.fullmatch(NAME, name)), None)
        if odd is not None:
            raise ValueError(f"{odd!r} names a folder: letters, digits, . _ -")
        return value

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, value: list[int]) -> list[int]:
        twice = next((seed for seed in value if value.count(seed) > 1), None)
        if twice is not None:
            raise ValueError(f"seed {twice} is given twice")
        return value
