"""Which recording, signer or speaker an example is of: columns of a table, or a regular expression on ids.

Examples of one group are alike in more than their contents, so a group belongs to one split. These columns are read,
whatever their case, and with or without `_`, `-` and spaces between words:

`recording`  recording, video, broadcast, episode, session, talk or youtube (also with `id` or `name`), chapter_id, yid
`signer`     signer or performer (also with `id` or `name`)
`speaker`    speaker, spk or talker (also with `id` or `name`), client_id (Common Voice)
`person`     participant, actor or writer (also with `id` or `name`), subject_id
`group`      group (also with `id` or `name`); or what `data.group` finds in the ids

A second column of one kind keeps its own name. Cells such as nan or unknown name no group.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sourcewise.data.examples import Dataset, Group, Note, Rows
from sourcewise.data.readers.cells import as_texts
from sourcewise.data.sequences import Same

GROUP = "group"
_NAMED = {
    "recording": ("recording", "video", "broadcast", "episode", "session", "talk", "youtube"),
    "signer": ("signer", "performer"),
    "speaker": ("speaker", "spk", "talker"),
    "person": ("participant", "actor", "writer"),
    GROUP: ("group",),
}
_ALONE = {"chapterid": "recording", "yid": "recording", "clientid": "speaker", "subjectid": "person"}
KINDS: dict[str, str] = {  # spelling in small letters without gaps → kind
    **{name + end: kind for kind, names in _NAMED.items() for name in names for end in ("", "id", "name")},
    **_ALONE,
}
PEOPLE = ("signer", "speaker", "person")  # kinds that official splits often share
_NONE = frozenset(
    ("", "nan", "none", "null", "na", "n/a", "<na>", "nat", "undefined", "unknown", "unk", "?", "-", "--")
)


def group_columns(names: Collection[str], used: Collection[str] = ()) -> dict[str, str]:
    """Kind → column, for the columns that name groups; those in `used`, which hold something else, are left out.

    The plainest spelling gives the kind; another column of the same kind is its own kind.
    """
    spelled = {name: KINDS[flat] for name in names if name not in used and (flat := _flat(name)) in KINDS}
    order = list(KINDS)
    found: dict[str, str] = {}
    for name in sorted(spelled, key=lambda name: order.index(_flat(name))):
        found[name if spelled[name] in found else spelled[name]] = name
    return found


def read_groups(
    columns: Mapping[str, Sequence[Any]], count: int, used: Collection[str] = ()
) -> tuple[Sequence[Group], list[tuple[int, str]]]:
    """The groups of the first `count` rows, and remarks (row, words) on cells that name none."""
    named = group_columns(columns, used)
    if not named:
        return Same({}, count), []
    remarks: list[tuple[int, str]] = []
    cells: list[list[str]] = []
    for column in named.values():
        texts = [text.strip() for text in as_texts(columns[column][:count], column).texts]
        words = [i for i, text in enumerate(texts) if text and names_none(text)]
        if words:
            remarks.append(
                (words[0], f"{len(words):,} cells of {column!r} are {texts[words[0]]!r}: they name no group")
            )
        cells.append(["" if names_none(text) else text for text in texts])
    known: dict[tuple[str, ...], Group] = {}  # sets are long, groups are few
    rows = [
        known.setdefault(row, {kind: value for kind, value in zip(named, row, strict=True) if value})
        for row in zip(*cells, strict=True)
    ]
    return rows, remarks


def with_group(dataset: Dataset, pattern: str) -> Dataset:
    """The set with `group` as the pattern finds it in each id: its first group, or all that it matches.

    Ids without a match are noted, and keep the `group` of their column.
    """
    compiled, rows = re.compile(pattern), dataset.examples
    named = zip(rows.ids, rows.groups, strict=True) if isinstance(rows, Rows) else ((e.id, e.group) for e in rows)
    groups, unmatched = list[Group](), list[str]()
    for name, group in named:
        found = compiled.search(name)
        value = found and (found[1] if compiled.groups else found[0])
        groups.append({**group, GROUP: value} if value else group)
        if not value:
            unmatched.append(name)
    notes = list(dataset.notes)
    if unmatched:
        count = f"{len(unmatched):,} of {len(groups):,} ids"
        notes.append(Note(dataset.name, "", f"data.group finds nothing in {count}, such as {unmatched[0]!r}"))
    if isinstance(rows, Rows):
        return replace(dataset, examples=replace(rows, groups=groups), notes=notes)
    examples = [replace(example, group=group) for example, group in zip(rows, groups, strict=True)]
    return replace(dataset, examples=examples, notes=notes)


def groups_in(dataset: Dataset) -> dict[str, dict[str, list[int]]]:
    """Kind → group → the places of its examples, in order."""
    found: dict[str, dict[str, list[int]]] = {}
    for place, example in enumerate(dataset):
        for kind, value in example.group.items():
            found.setdefault(kind, {}).setdefault(value, []).append(place)
    return found


def names_none(text: str) -> bool:
    """Whether a cell such as an empty one, `nan` or `unknown` names no group."""
    return text.strip().casefold() in _NONE


def _flat(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()
