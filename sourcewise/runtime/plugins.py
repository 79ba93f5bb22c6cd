"""Plug-ins: objects that other packages provide by entry points. A broken one is reported and left out."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from sourcewise.errors import tell

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Found = TypeVar("Found")
GROUPS = ("sourcewise.bridges", "sourcewise.features", "sourcewise.metrics", "sourcewise.readers", "sourcewise.rules")


def plugins(group: str, taken: Callable[[object], Found]) -> Iterator[Found]:
    """Loads the entry points of a group in order of name and yields `taken(object)` for each; see `packaged`."""
    return packaged(group, lambda found, package: taken(found))


def packaged(group: str, taken: Callable[[object, str], Found]) -> Iterator[Found]:
    """The same, where `taken` is given the name of the package, too.

    A plug-in that cannot be imported, or that `taken` refuses (by a ValueError or TypeError that says why), is left
    out with a `Notice` that names it, so that a broken package stops nobody's work.
    """
    for entry in entries(group, tuple(sys.path)):
        try:
            yield taken(entry.load(), entry.dist.name if entry.dist is not None else entry.value)
        except Exception as error:  # foreign code may raise anything at import
            tell(f"plug-in {_named(entry)} ({entry.group}): left out: {type(error).__name__}: {error}")


def names(group: str) -> list[str]:
    """The names of a group's entry points, without importing them."""
    return list(dict.fromkeys(entry.name for entry in entries(group, tuple(sys.path))))


def installed() -> dict[str, str]:
    """Group → its entry points in words, for our groups that have any; none of them is loaded."""
    found = {group: entries(group, tuple(sys.path)) for group in GROUPS}
    return {group: ", ".join(sorted(map(_named, its))) for group, its in found.items() if its}


@functools.cache  # every installed package is asked, which takes longer than a step of a small training
def entries(group: str, path: tuple[str, ...]) -> list[EntryPoint]:
    """The entry points of a group by name, as the packages on a module search path have them."""
    from importlib.metadata import entry_points  # slow to import, and seldom needed

    return sorted(entry_points(group=group), key=lambda entry: entry.name)


def _named(entry: EntryPoint) -> str:
    """`hapax of hapax-metric 1.0`."""
    return entry.name + ("" if entry.dist is None else f" of {entry.dist.name} {entry.dist.version}")
