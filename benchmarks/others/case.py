"""What a case of the exam by others is: a fault somebody had, or a healthy recipe, in both forms."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Host = Literal["trainer", "loop", "lightning", "diagnose", "recipe"]
HOSTS: tuple[Host, ...] = ("trainer", "loop", "lightning", "diagnose", "recipe")


@dataclass(frozen=True)
class Case:
    """A fault, or a healthy control (`accepts` is empty then).

    `make` builds it, broken or mended; what it takes and gives is the host's to say (see hosts.py). `accepts` are the
    codes of rules that name the cause, each with a pattern that the finding's text must hold ("" where the code alone
    is enough), and keys such as "new:padding-side" where no rule does yet: keys.py turns them into codes.
    """

    name: str
    host: Host
    origin: str  # who had it: an issue, a paper, a code base
    what: str  # what is broken
    expected: str  # what would count as naming the cause, in words
    accepts: Mapping[str, str]
    figure: str  # what shows, without any tool of ours, that it is at fault
    gap: float  # by how much this figure is lower where it is broken
    make: Callable[..., Any]
    also: frozenset[str] = frozenset()  # codes that are true beside the cause: neither cause nor wrong

    @property
    def control(self) -> bool:
        """Whether nothing is broken in it."""
        return not self.accepts


@dataclass
class Cases:
    """What a module of cases collects; its name in each module is CASES."""

    found: dict[str, Case] = field(default_factory=dict)

    def fault(self, name: str, host: Host, **told: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare a fault; `accepts` and `also` are codes with spaces between, `CODE=pattern` where words count."""
        accepts = patterns(told.pop("accepts"))
        also = frozenset(told.pop("also", "").split())
        told = {"figure": "exact match of generated validation outputs", "gap": 0.2} | told

        def declare(make: Callable[..., Any]) -> Callable[..., Any]:
            self._add(Case(name=name, host=host, accepts=accepts, also=also, make=make, **told))
            return make

        return declare

    def control(self, name: str, host: Host, origin: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declare a healthy recipe."""

        def declare(make: Callable[..., Any]) -> Callable[..., Any]:
            self._add(Case(name, host, origin, "nothing", "no error, no warning", {}, "", 0.0, make))
            return make

        return declare

    def _add(self, case: Case) -> None:
        assert case.name not in self.found, case.name
        self.found[case.name] = case


def patterns(text: str) -> dict[str, str]:
    """`"WIR008 TRN001=fp16|half"` → {"WIR008": "", "TRN001": "fp16|half"}."""
    return {code: pattern for code, _, pattern in (word.partition("=") for word in text.split())}


def names_cause(finding: Mapping[str, str], accepts: Mapping[str, str]) -> bool:
    """Whether this finding names the cause: its code is accepted, and its text holds what must stand in it."""
    pattern = accepts.get(finding["code"])
    text = f"{finding['name']} {finding['evidence']}"  # a cure may name many causes
    return pattern is not None and re.search(pattern, text, re.IGNORECASE) is not None
