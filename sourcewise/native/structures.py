"""The structs that compiled code is given, as its C++ declares them, so that each is written once."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from ctypes import Structure, c_float, c_int32, c_int64, c_uint32, c_uint64, c_void_p
from pathlib import Path
from types import SimpleNamespace
from typing import Any

NUMBERS = {"int64_t": c_int64, "int32_t": c_int32, "uint64_t": c_uint64, "uint32_t": c_uint32, "float": c_float}
STRUCT = re.compile(r"^struct (\w+) \{\n((?:    [^()\n]*;\n)+)", re.MULTILINE)  # name, lines of fields
LINE = re.compile(r"(?:const )?(\w+)([^;]+);")  # type, names with their stars and counts
NAME = re.compile(r"[\s*]*(\w+)(?:\[(\d+)\])?")


def structures(*files: Path) -> Any:
    """The structs in C++ files of numbers, pointers, arrays and such structs, as attributes: ctypes structures.

    Fields come first in them; an empty line parts them from methods.
    """
    known: dict[str, Any] = dict(NUMBERS)
    for file in files:
        text = re.sub(r" *//.*", "", file.read_text(encoding="utf-8"))
        for struct, body in STRUCT.findall(text):
            with contextlib.suppress(KeyError, AttributeError):  # it holds what only C++ knows
                fields = [field for kind, names in LINE.findall(body) for field in _fields(kind, names, known)]
                known[struct] = type(struct, (Structure,), {"_fields_": fields})
    return SimpleNamespace(**known)


def _fields(kind: str, names: str, known: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for each in names.split(","):
        of = c_void_p if "*" in each else known[kind]
        name, count = NAME.fullmatch(each).groups()  # type: ignore[union-attr]
        yield name, of * int(count) if count else of
