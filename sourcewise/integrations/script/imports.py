"""What is done as soon as somebody else's script has imported a module: nothing is imported for it."""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Then = Callable[[ModuleType], None]


class AfterImport(importlib.abc.MetaPathFinder):
    """Calls a function with a module of a given name right after its code has run; `wanted` is name → function."""

    def __init__(self, wanted: Mapping[str, Then]) -> None:
        self.wanted = dict(wanted)

    def install(self) -> None:
        """From now on."""
        sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """No longer."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's own spec, by whoever else finds it, its loader wrapped."""
        then = self.wanted.pop(fullname, None)
        if then is None:
            return None
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, then)  # type: ignore[assignment]
        return spec


class _Loader:
    """A loader that tells when it has loaded; in everything else it is the one inside."""

    def __init__(self, loader: Any, then: Then) -> None:
        self.loader, self.then = loader, then

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the loader inside."""
        made: ModuleType | None = self.loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        """As the loader inside; afterwards the module is as if that had loaded it."""
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        module.__loader__ = self.loader
        self.loader.exec_module(module)
        self.then(module)
