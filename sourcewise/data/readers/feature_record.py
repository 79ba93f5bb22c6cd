"""How the features of a folder were made: the record that `sourcewise features` writes beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sourcewise.errors import RequestError

RECORD_FILE = "features.json"
MADE = ("reads", "model", "digest", "processor", "layer", "stride", "rate")  # what makes features others
UPWARD = 4  # folders, from that of a file upward, in which a record is looked for

Record = Mapping[str, Any]


def read_record(folder: Path) -> Record | None:
    """The record of a folder; None if there is none. Raises RequestError for a damaged one."""
    path = folder / RECORD_FILE
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"{path}: cannot be read ({error}); it says how the features were made") from None
    if not isinstance(found, dict):
        raise RequestError(f"{path}: should be an object that says how the features were made")
    return found if "digest" in found and "model" in found else None  # another program's file of that name


def made_of(files: Mapping[str, Path]) -> dict[str, Record]:
    """Stream → record of the folder that one of its files lies in, or of one above; streams without a record not."""
    found = {}
    for name, path in files.items():
        records = (read_record(folder) for folder in list(path.absolute().parents)[:UPWARD])
        record = next((each for each in records if each is not None), None)
        if record is not None:
            found[name] = record
    return found


def differences(first: Mapping[str, Record], second: Mapping[str, Record]) -> Iterator[str]:
    """In what the features of two sets were made differently, in words; streams without a record tell nothing."""
    for name in sorted(first.keys() & second.keys()):
        of_stream = f"{name}: " if name else ""
        a, b = first[name], second[name]
        same_name = a.get("model") == b.get("model")
        for key in MADE:
            if a.get(key) == b.get(key) or (key == "digest" and not same_name) or key == "processor":
                continue
            if key == "digest":
                yield f"{of_stream}by other weights of {a.get('model')}"
            else:
                yield f"{of_stream}{key} {_shown(a.get(key))}, not {_shown(b.get(key))}"
        if a.get("processor") != b.get("processor") and same_name:
            yield f"{of_stream}by another preprocessing ({_keys(a.get('processor'), b.get('processor'))})"


def told_apart(sets: Sequence[tuple[str, Mapping[str, Record]]]) -> Iterator[str]:
    """A line for each set whose features were made otherwise than those of the first."""
    for name, made in sets[1:]:
        if found := list(differences(made, sets[0][1])):
            yield f"{name}: its features were made otherwise than those of {sets[0][0]}: {'; '.join(found)}"


def _shown(value: Any) -> str:
    return "unset" if value is None else str(value)


def _keys(a: Any, b: Any) -> str:
    if not (isinstance(a, dict) and isinstance(b, dict)):
        return "one has none"
    return ", ".join(sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key)))
