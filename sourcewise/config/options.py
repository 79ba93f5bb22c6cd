"""Base class of the sections of a recipe, and the types that options share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, PydanticKnownError, core_schema

from sourcewise.config import messages as schema
from sourcewise.figures import judging

Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


@dataclass(frozen=True)
class Choice:
    """One of several names, looked up at validation, since plug-ins add names."""

    known: Callable[[], list[str]]

    @property
    def choices(self) -> list[str]:
        """The names, as `messages.type_name` lists them."""
        return self.known()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._one_of_them)

    def _one_of_them(self, value: Any) -> str:
        names = self.choices
        if isinstance(value, str) and value in names:
            return value
        *others, last = map(repr, names)
        raise PydanticKnownError("literal_error", {"expected": f"{', '.join(others)} or {last}"})


TaskFigure = Annotated[str, Choice(partial(judging, "tasks"))]
RunFigure = Annotated[str, Choice(partial(judging, "runs"))]


class Options(BaseModel):
    """A section of a recipe: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _empty_section(cls, value: Any) -> Any:
        """An empty section (`train:`) has all defaults."""
        if not isinstance(value, dict):
            return value
        sections = [name for name, field in cls.model_fields.items() if isinstance(field.annotation, type(Options))]
        return {key: part for key, part in value.items() if part is not None or key not in sections}

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and annotation is not bool and schema.plain_type(annotation) in (int, float):
            raise PydanticCustomError("number_type", "Input should be a number")
        return value
