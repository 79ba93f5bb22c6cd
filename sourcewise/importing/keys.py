"""A configuration of somebody else, of which every key is either carried over or told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sourcewise.errors import RequestError

MISSING = object()


@dataclass
class Imported:
    """A recipe as a tree, what could not be carried over as it was, and the tables to write beside the recipe."""

    tree: dict[str, Any]
    told: list[str]
    tables: dict[str, tuple[str, str]] = field(default_factory=dict)  # name of a table → its two files of lines


class Theirs:
    """The keys of a configuration, dotted. Each is taken, or is told at the end: none is dropped in silence."""

    def __init__(self, tree: Mapping[str, Any], where: str) -> None:
        self.where = where
        self.values = dict(_flat(tree))
        self.rest = set(self.values)
        self.ours: dict[str, Any] = {}
        self.told: list[str] = []

    def get(self, *names: str, default: Any = None, kind: type | tuple[type, ...] | None = None) -> Any:
        """The value of the first of these keys that is there; all of them count as taken. Raises RequestError."""
        found = [name for name in names if name in self.values]
        self.rest -= set(found)
        if not found:
            return default
        value = self.values[found[0]]
        is_wrong = kind is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool))
        if is_wrong:
            raise RequestError(f"{self.where}: {found[0]}: {value!r} is not what JoeyNMT takes here")
        return value

    def carry(self, ours: str, *names: str) -> Any:
        """Sets our option to the value of the first of their keys that is there; gives it, or None."""
        value = self.get(*names, default=MISSING)
        if value is MISSING or value is None:
            return None
        self.ours[ours] = value
        return value

    def tell(self, name: str, why: str) -> None:
        """A key that could not be carried over, or not as it was."""
        shown = f" {self.values[name]!r:.60}" if name in self.values else ""
        self.rest.discard(name)
        self.told.append(f"{name}{shown}: {why}")

    def off(self, why: str, *names: str, values: tuple[Any, ...] = (None, False, 0, -1, "none", "")) -> None:
        """Keys that matter only with other values than these: then each is told."""
        for name in names:
            if name in self.values and not any(
                self.values[name] is each or self.values[name] == each for each in values
            ):
                self.tell(name, why)
            self.rest.discard(name)

    def leftover(self) -> None:
        """One line of all keys that nobody asked for."""
        if self.rest:
            self.told.append(f"nothing like it here: {', '.join(sorted(self.rest))}")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted key, value) of all that is no section."""
    found: list[tuple[str, Any]] = []
    for name, value in tree.items():
        dotted = f"{prefix}{name}"
        found += _flat(value, f"{dotted}.") if isinstance(value, Mapping) else [(dotted, value)]
    return found
