"""Somebody's script, run as `python train.py` and `python -m package.train` run it."""

from __future__ import annotations

import importlib.util
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import Any

from sourcewise.errors import RequestError

OURS = str(Path(__file__).parent)
OTHERS = {".ipynb": "jupyter nbconvert --to script makes a script of it", ".sh": "name the Python script that it calls"}


@dataclass(frozen=True, slots=True)
class Program:
    """A script by its path, or a module by its dotted name, and what it is given."""

    name: str
    arguments: Sequence[str] = ()

    @property
    def path(self) -> Path:
        """The file; of a folder the `__main__.py` in it."""
        return Path(self.name, "__main__.py") if Path(self.name).is_dir() else Path(self.name)

    @property
    def is_module(self) -> bool:
        """Whether it is named as for `python -m`."""
        dotted = all(part.isidentifier() for part in self.name.split("."))
        return dotted and not self.name.endswith(".py") and not Path(self.name).exists()

    def check(self) -> None:
        """Raises RequestError where there is no such script."""
        if self.is_module:
            return  # found by the process that runs it, with that one's path
        if (way := OTHERS.get(self.path.suffix)) is not None:
            raise RequestError(f"{self.name}: is no Python script; {way}")
        if not self.path.is_file():
            raise RequestError(f"{self.name}: no such script")

    def main(self) -> tuple[CodeType, ModuleType]:
        """Its code, and the main module that it runs in, which stands from now on: threads and `atexit` functions
        still read its names in the end. Raises RequestError for no such module, and SyntaxError.
        """
        main = ModuleType("__main__")
        code = self._as_module(main) if self.is_module else self._as_script(main)
        sys.modules["__main__"] = main
        return code, main

    def _as_script(self, main: ModuleType) -> CodeType:
        path = os.path.abspath(self.path)  # noqa: PTH100  (as Python has it: links are kept in __file__)
        folder = self.name if Path(self.name).is_dir() else Path(path).resolve().parent
        sys.path[0], sys.argv = str(folder), [self.name, *self.arguments]
        vars(main).update(__file__=path, __cached__=None, __loader__=SourceFileLoader("__main__", path))
        vars(main)["__builtins__"] = __builtins__
        with io.open_code(path) as file:
            return compile(file.read(), path, "exec", dont_inherit=True)

    def _as_module(self, main: ModuleType) -> CodeType:
        sys.path[0], sys.argv = str(Path.cwd()), ["-m", *self.arguments]
        spec = _spec(self.name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = _spec(f"{self.name}.__main__")
        code = None if spec is None or spec.loader is None else spec.loader.get_code(spec.name)  # type: ignore[attr-defined]
        if spec is None or code is None:
            raise RequestError(f"{self.name}: no such file, and no module of that name to run")
        sys.argv[0] = spec.origin or self.name
        vars(main).update(__file__=spec.origin, __cached__=spec.cached, __loader__=spec.loader, __spec__=spec)
        vars(main).update(__package__=spec.parent, __builtins__=__builtins__)
        return code  # type: ignore[no-any-return]


def _spec(name: str) -> Any:
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError as problem:
        if problem.name is not None and f"{name}.".startswith(f"{problem.name}."):
            return None
        raise


def show(problem: BaseException) -> None:
    """Show an error as Python shows it where a script raises it: without the frames that are ours."""
    seen: BaseException | None = problem
    known: set[int] = set()
    while seen is not None and id(seen) not in known:
        known.add(id(seen))
        seen.__traceback__ = _without_ours(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__
    sys.excepthook(type(problem), problem, problem.__traceback__)


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    if trace is None:
        return None
    rest = _without_ours(trace.tb_next)
    if trace.tb_frame.f_code.co_filename.startswith(OURS):
        return rest
    return TracebackType(rest, trace.tb_frame, trace.tb_lasti, trace.tb_lineno)
