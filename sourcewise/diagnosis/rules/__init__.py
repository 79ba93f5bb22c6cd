"""The rules, by code: a file each, in the folders beside this one, and those that other packages bring.

A package brings rules by entry points of the group `sourcewise.rules`, each a module with rules or a rule.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from sourcewise.diagnosis.answer import Piece
from sourcewise.diagnosis.rule import Rule, asked, matching, not_checked
from sourcewise.runtime.plugins import packaged

__all__ = ["RULES", "Rule", "absent", "look"]

GROUPS = {  # folder → the letters of its codes; causes before symptoms, which breaks ties between findings of one level
    "data": ("DAT",),
    "wiring": ("WIR",),
    "training": ("TRN",),
    "source": ("MEM", "ATT", "SRC"),
    "outputs": ("OUT",),
}
ENTRY_POINTS = "sourcewise.rules"


def look(*subjects: Any, codes: str = "*") -> Piece:
    """What the rules over these find, and what they cannot tell; only those that `codes` are patterns of."""
    return asked([RULES[code] for code in matching(codes, tuple(RULES))], subjects)


def absent(subject: type, why: str) -> str:
    """That nothing is there of what some rules look at, in words; `subject` says what that is `about`."""
    return not_checked(subject.about, [code for code, rule in RULES.items() if rule.subject is subject], why)  # type: ignore[attr-defined]


def rules_in(module: ModuleType) -> Iterator[type[Rule[Any]]]:
    """The rules that a module defines."""
    for value in vars(module).values():
        rule = isinstance(value, type) and issubclass(value, Rule) and "code" in vars(value)
        if rule and value.__module__ == module.__name__:
            yield value


def _ours() -> Iterator[Rule[Any]]:
    for group in GROUPS:
        for module in pkgutil.iter_modules([str(Path(__file__).parent / group)]):
            for rule in rules_in(importlib.import_module(f"{__name__}.{group}.{module.name}")):
                yield rule()


def _others(known: Iterable[str]) -> Iterator[Rule[Any]]:
    """The rules of other packages. What is wrong with one is told, and the others are there."""
    taken = set(known)

    def made(found: object, package: str) -> list[Rule[Any]]:
        kinds = list(rules_in(found)) if isinstance(found, ModuleType) else [found]
        rules = [kind() for kind in kinds if isinstance(kind, type) and issubclass(kind, Rule)]
        if len(rules) < len(kinds) or any(not hasattr(rule, "code") for rule in rules):
            raise TypeError("it is neither a rule nor a module of rules")
        for rule in rules:
            if rule.code in taken:
                raise ValueError(f"there is a rule {rule.code} already")
            taken.add(rule.code)
            rule.package = package
        return rules

    for rules in packaged(ENTRY_POINTS, made):
        yield from rules


def _place(rule: Rule[Any]) -> tuple[int, float, str]:
    letters = rule.code.rstrip("0123456789")
    groups = [place for place, known in enumerate(GROUPS.values()) if letters in known]
    return (groups or [len(GROUPS)])[0], rule.rank, rule.code


def _linked(rules: Iterable[Rule[Any]]) -> dict[str, Rule[Any]]:
    """In their order, each with the codes of its causes."""
    known = {rule.code: rule for rule in sorted(rules, key=_place)}
    codes = tuple(known)
    explains = {code: set(matching(rule.explains, codes)) for code, rule in known.items()}
    for code, rule in known.items():
        causes = {*matching(rule.explained_by, codes), *(each for each in codes if code in explains[each])}
        rule.causes = tuple(each for each in codes if each in causes - {code})
    return known


def _all() -> dict[str, Rule[Any]]:
    ours = list(_ours())
    return _linked([*ours, *_others(rule.code for rule in ours)])


RULES: dict[str, Rule[Any]] = _all()
