"""What to do about a finding, as data: words, and below them options, which each host says in its own way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

Options = Mapping[str, Any]  # of a recipe, by their names


class Cure:
    """A paragraph, and lines to paste below it: options of a recipe, or a command.

    `instead` are the words for who trains otherwise than by our recipes, where they are others; "": none.
    """

    __slots__ = ("instead", "ways", "words")

    def __init__(self, words: str = "", *ways: Options | str, instead: str | None = None) -> None:
        self.words, self.ways, self.instead = words, ways, instead

    @property
    def options(self) -> set[str]:
        """The names of all its options."""
        return {name for way in self.ways if not isinstance(way, str) for name in way}


def pasted(cures: Iterable[Cure]) -> str:
    """Cures as our own recipes take them: one line per paragraph, and lines to paste, which begin with two spaces."""
    lines: list[str] = []
    for cure in cures:
        lines += [cure.words] if cure.words else []
        lines += [f"  {way if isinstance(way, str) else flags(way)}" for way in cure.ways]
    return "\n".join(lines)


def flags(options: Options) -> str:
    """`--train.clip 1.0 --train.freeze '[]'`."""
    return " ".join(f"--{name} {said(value)}" for name, value in options.items())


def said(value: Any) -> str:
    """A value as a shell takes it."""
    if isinstance(value, list):
        return f"'[{', '.join(map(str, value))}]'"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and 0 < abs(value) < 0.01:
        power = math.floor(math.log10(abs(value)))
        return f"{value / 10**power:g}e{power}"
    return str(value)
