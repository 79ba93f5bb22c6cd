"""What a fault is: how it is planted, and which rules name it."""

from __future__ import annotations

import contextlib
import functools
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np

from planted.material import Material

Spoil = Callable[[Material, np.random.Generator], Material]
Patch = Callable[[], contextlib.AbstractContextManager[Any]]


@dataclass(frozen=True)
class Fault:
    """One fault, as a user would have made it.

    `causes` are the codes whose text, not whose result, says that they name it; the first fits best.
    """

    name: str
    what: str
    causes: frozenset[str]
    subjects: tuple[str, ...]
    spoil: Spoil | None = None  # of the rows, before they are written
    options: Mapping[str, Any] = field(default_factory=dict)  # of the recipe
    patches: tuple[Patch, ...] = ()  # of the code, for as long as it is examined
    change: Callable[[Any], None] | None = None  # of each network that is built
    stranger: Mapping[str, Any] = field(default_factory=dict)  # of Hugging Face's training, see stranger.py


def fault(name: str, what: str, causes: str, subjects: Sequence[str], **how: Any) -> Fault:
    """A fault; `causes` are codes with spaces between."""
    return Fault(name, what, frozenset(causes.split()), tuple(subjects), **how)


def instead(target: str, value: Any) -> Patch:
    """Put something else where `target` ("module.name" or "module.class.name") is."""
    return lambda: mock.patch(target, value)


def around(target: str, wrapper: Callable[..., Any]) -> Patch:
    """Call `wrapper(usual, *args, **kwargs)` where `target` is called."""

    @contextlib.contextmanager
    def patched() -> Iterator[None]:
        owner, name = target.rsplit(".", 1)
        usual = getattr(pkgutil.resolve_name(owner), name)

        @functools.wraps(usual)
        def call(*args: Any, **kwargs: Any) -> Any:
            return wrapper(usual, *args, **kwargs)

        with mock.patch(target, call):
            yield

    return patched
