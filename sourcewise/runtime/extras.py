"""Packages that few need, imported where they are used; who lacks one is told how to get it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from sourcewise.errors import RequestError


def taken(module: str, extra: str, what: str) -> Any:
    """The module. Raises RequestError that says what takes it, and which extra brings it, where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        package = (error.name or module).partition(".")[0]
        hint = f"pip install 'sourcewise[{extra}]'"
        raise RequestError(f"{what} takes {package}, which is not installed: {hint}") from None


def parquet(path: object) -> Any:
    """`pyarrow`, with its `parquet`, to read or write this file. Raises RequestError where it is not installed."""
    what = f"{path}: a Parquet or Arrow file"
    taken("pyarrow.parquet", "parquet", what)
    return taken("pyarrow", "parquet", what)
