"""Lists the options of a recipe with their types, and turns pydantic's errors into one line.

It knows pydantic but no option by name, so that the other modules of this package hold nothing but options.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

Section = type[BaseModel]


def rows(section: Section, prefix: str = "") -> list[tuple[str, str, str, str]]:
    """(dotted key, type, default, description) of every option below a section."""
    found = []
    for name, field in section.model_fields.items():
        nested = section_of(field.annotation)
        if nested is not None:
            found += rows(nested, f"{prefix}{name}.")
        else:
            default = field.get_default(call_default_factory=True)
            shown = str(default).lower() if isinstance(default, bool) else "" if default in (None, []) else str(default)
            found.append((prefix + name, type_name(_annotated(field)), shown, field.description or ""))
    return found


def section_of(annotation: Any) -> Section | None:
    """The section type of a field, also of an optional one or of a list; None for other fields."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def section_at(root: Section, path: list[str]) -> Section | None:
    """The section at a path such as data, train; numbers in the path are places in lists of sections."""
    section: Section | None = root
    for name in path:
        if section is not None and not name.isdigit():
            field = section.model_fields.get(name)
            section = section_of(field.annotation) if field else None
    return section


def field_at(root: Section, path: list[str]) -> FieldInfo | None:
    """The field (option or section) at a path; None where there is none."""
    section = section_at(root, path[:-1])
    return section.model_fields.get(path[-1]) if section and path else None


def plain_type(annotation: Any) -> type | None:
    """The type (int, float, str, bool, list or section) inside Optional, Annotated and Literal."""
    if isinstance(annotation, str):  # a Literal's value
        return str
    if get_origin(annotation) is None and isinstance(annotation, type):
        return annotation
    if get_origin(annotation) is list:
        return list
    inner = [plain_type(a) for a in get_args(annotation) if a is not type(None)]
    return next((t for t in inner if t is not None), None)


def type_name(annotation: Any) -> str:
    """Name of a type for users: `integer`, `cosine|constant`, `list of text`."""
    choices = next((c for c in (getattr(a, "choices", None) for a in get_args(annotation)) if c), ())
    arguments = choices or get_args(annotation)
    if arguments and all(isinstance(a, str) for a in arguments):
        return "|".join(arguments)
    if get_origin(annotation) is list:
        return f"list of {type_name(arguments[0])}"
    if arguments:
        return type_name(next(a for a in arguments if a is not type(None)))
    return {str: "text", int: "integer", float: "number", bool: "true|false"}.get(annotation, annotation.__name__)


def _annotated(field: FieldInfo) -> Any:
    """A field's annotation with the metadata that pydantic took out of it."""
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def explain(error: ValidationError, root: Section, where: str, overrides: Iterable[str] = ()) -> str:
    """The first error in one line: the key, what is wrong, what would be right.

    `overrides` are the keys that came from the command line rather than from `where`.
    """
    problems = error.errors()
    # A union (a set, or a list of sets) reports every member: keep the member that was meant, then the deepest.
    meant = [p for p in problems if not _other_member(p["type"], p.get("input"))]
    problem = max(meant or problems, key=lambda p: len(_key_path(p["loc"])))
    path = _key_path(problem["loc"])
    key = ".".join(path) or "recipe"
    given = any(key == o or key.startswith(f"{o}.") for o in overrides)
    start = f"--{key}" if given else f"{where}: {key}"
    if problem["type"] == "extra_forbidden":
        below = next((o.removeprefix(key) for o in overrides if o.startswith(f"{key}.")), "")  # --tarin.steps 5
        if given or below:
            return f"--{key}{below}: unknown key; {_nearest(root, path, '--', below)}"
        return f"{start}: unknown key; {_nearest(root, path)}"
    if problem["type"] == "value_error":
        return f"{start}: {problem['msg'].removeprefix('Value error, ')}"
    return f"{start} {_wanted(root, path, problem['type'], problem['msg'])}, not {_shown(problem.get('input'))}"


def _other_member(kind: str, value: Any) -> bool:
    return (kind == "model_type" and isinstance(value, list)) or (kind == "list_type" and isinstance(value, dict))


def _key_path(location: tuple[str | int, ...]) -> list[str]:
    """A location without the names of union members that pydantic inserts."""
    return [str(x) for x in location if not re.fullmatch(r"[A-Z]\w+Config|[\w-]+\[.*\]|\[key\]", str(x))]


def _wanted(root: Section, path: list[str], kind: str, message: str) -> str:
    """The expected value, in words, for an error of this kind."""
    if kind in ("model_type", "model_attributes_type"):
        section = section_at(root, path)
        keys = list(section.model_fields)[:4] if section else []
        return f"should be a section with keys like {', '.join(keys)}"
    if kind == "string_pattern_mismatch":
        field = field_at(root, path)
        return f"should be {field.description if field else 'another text'}"
    if kind == "too_short":
        return "should have at least one entry"
    if kind == "invalid_key":
        return "should be a key that is text"
    if kind == "string_type":
        return "should be text"
    if kind in ("bool_parsing", "bool_type"):
        return "should be true or false"
    return re.sub(r", (got|unable) .*", "", message).removeprefix("Input ")


def _shown(value: Any) -> str:
    if value == []:
        return "an empty list"
    if isinstance(value, (dict, list)):
        return "a section" if isinstance(value, dict) else "a list"
    return "empty" if value is None else repr(value)[:80]


def _nearest(root: Section, path: list[str], dashes: str = "", below: str = "") -> str:
    """A suggestion for an unknown key: the same name elsewhere, a similar one here, a similar one elsewhere.

    `below` is the rest of the option if the unknown key is a section.
    """
    section = section_at(root, path[:-1])
    known = list(section.model_fields) if section else []
    leaves: dict[str, str] = {}
    for dotted, *_ in rows(root):
        leaves.setdefault(dotted.split(".")[-1], dotted)
    near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.6)
    far = difflib.get_close_matches(path[-1], leaves, n=1, cutoff=0.75)
    if path[-1] in leaves:
        return f"did you mean {dashes}{leaves[path[-1]]}?"
    if near:
        meant = ".".join([*path[:-1], near[0]])
        return f"did you mean {dashes}{meant}{below if section_at(root, [*path[:-1], near[0]]) else ''}?"
    return f"did you mean {dashes}{leaves[far[0]]}?" if far else f"known here: {', '.join(known)}"
