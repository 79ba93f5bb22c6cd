"""Manifests: rows with a feature file, or a matrix, and its target text each; layouts.py lists what is known.

A row is bad if its span is empty or begins beyond the end of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sourcewise.config.data import Sounds
from sourcewise.data.examples import Dataset, Example, Group
from sourcewise.data.readers.clips import Clips, find_clips, in_the_rows
from sourcewise.data.readers.delimited import Quoting
from sourcewise.data.readers.feature_record import Record, made_of
from sourcewise.data.readers.layouts import Layout
from sourcewise.data.readers.manifest_rows import ManifestRows, read_rows
from sourcewise.data.readers.matrices import Clip, MatrixStore
from sourcewise.data.readers.places import Features, is_pattern, streams_of
from sourcewise.data.readers.several import read_targets
from sourcewise.data.readers.streams import JoinedStore
from sourcewise.data.readers.tables import Table
from sourcewise.errors import RequestError

_IDS = ("id", "name")  # columns that name an example


def read_manifest(
    path: str | Path,
    features: Features | None = None,
    *,
    target: str | None = None,
    prompt: str | None = None,
    file: str | None = None,
    need_target: bool = True,
    limit: int | None = None,
    cache_gb: float = 4.0,
    quoting: Quoting = "auto",
    skip_bad: bool = False,
    languages: tuple[str, str] = ("", ""),
    sounds: Sounds | None = None,
) -> Dataset:
    """The examples of a manifest, with checked matrices (all their numbers, if they fit into `cache_gb`).

    `features` is the folder of the files, one file of many clips, or a pattern with {id}; or several such by name,
    whose frames are joined. By default it is the folder that the row names, or a usual one: `features/NAME`,
    `features`, beside the manifest or one folder up. `target`, `prompt` and `file` name columns instead of the
    layout's own. Raises RequestError that counts the bad rows and names manifest, line and file of the first; with
    `skip_bad` bad rows are skipped and noted. `languages` are those of prompts and targets, or `column:NAME`.
    Recordings are read as `sounds` says, by default as log-mel features.
    """
    rows = read_rows(Path(path), quoting, file)
    table = rows.table
    count = len(table) if limit is None else min(limit, len(table))
    said = _said(rows, count, target, prompt, need_target, languages)
    store, places, made = _matrices(rows, count, features, cache_gb * 1e9, sounds)
    if need_target:
        table.bad.add_blank(said.targets, said.wheres, "the target is empty", "every example needs a text to produce")
    kept, left_out = table.bad.settle(said.wheres, skip_bad)
    return Dataset(
        [said.example(row, store.frames[places[row]]) for row in kept],
        str(path),
        store.dims,
        lambda k: store(places[kept[k]]),
        from_files=not store.cached,
        notes=[*table.notes, *left_out],
        made=made,
        streams=store.widths if isinstance(store, JoinedStore) else {},
        image=store.image,
    )


@dataclass(frozen=True, slots=True)
class _Said:
    """What the rows of a manifest say beside their matrices, each a list of one entry per row."""

    ids: Sequence[str]
    targets: Sequence[str]
    others: Sequence[tuple[str, ...]]
    prompts: Sequence[str]
    wheres: Sequence[str]
    languages: Sequence[tuple[str, str]]
    groups: Sequence[Group]

    def example(self, row: int, frames: int) -> Example:
        """The example of a row whose matrix has this many frames."""
        return Example(
            self.ids[row],
            self.targets[row],
            self.prompts[row],
            frames,
            self.wheres[row],
            others=self.others[row],
            languages=self.languages[row],
            group=self.groups[row],
        )


def _said(
    rows: ManifestRows,
    count: int,
    target: str | None,
    prompt: str | None,
    need_target: bool,
    languages: tuple[str, str],
) -> _Said:
    table, layout = rows.table, rows.layout
    targets, others = _targets(table, layout, target, need_target, count)
    prompts = table.text(prompt, count) if prompt else _optional(table, layout.prompt)
    groups = _groups(table, layout, count, (target or "", prompt or ""))
    spoken = table.languages(languages, count)
    _tell_of_ids(table, count)
    return _Said(ids_of(rows), targets, others, prompts or [""] * count, table.wheres(count), spoken, groups)


def target_texts(
    path: str | Path, target: str | None = None, quoting: Quoting = "auto", file: str | None = None
) -> list[str]:
    """The target texts of a manifest; features are not looked at. Raises RequestError."""
    rows = read_rows(Path(path), quoting, file)
    return _targets(rows.table, rows.layout, target, True, len(rows.table))[0]


def _matrices(
    rows: ManifestRows, count: int, features: Features | None, cache_bytes: float, sounds: Sounds | None
) -> tuple[MatrixStore | JoinedStore, dict[int, int], dict[str, Record]]:
    """The matrices of a manifest, row → place among them, and how those of each stream were made, where it is known."""
    streams = streams_of(features)
    found = {name: _clips(rows, count, each) for name, each in streams.items()}
    usable = [row for row in range(count) if all(row in clips.of for clips in found.values())]
    stores = {
        name: MatrixStore([clips.of[row] for row in usable], cache_bytes / len(found), clips.stores, sounds)
        for name, clips in found.items()
    }
    store = next(iter(stores.values())) if len(stores) == 1 else JoinedStore(stores)
    _look_at_matrices(rows.table, usable, store)
    made = made_of({name: each.clips[0].path for name, each in stores.items() if each.clips})
    return store, {row: place for place, row in enumerate(usable)}, made


def _clips(rows: ManifestRows, count: int, features: str | Path | None) -> Clips:
    table, layout = rows.table, rows.layout
    matrices = rows.records.matrices.get(layout.file)
    if matrices is not None and features is not None:
        raise RequestError(f"{features}: {table.name} holds its matrices itself, in {layout.file}; leave features out")
    if matrices is not None:
        return in_the_rows(table, layout, count, matrices)
    if features is not None and not is_pattern(features) and not Path(features).exists():
        raise RequestError(f"{features}: no such folder; it should hold the .npy files that {table.name} lists")
    return find_clips(table, layout, count, features)


def _look_at_matrices(table: Table, rows: list[int], store: MatrixStore | JoinedStore) -> None:
    """Record rows without a usable matrix as bad, and note what is not read as it stands."""
    cut = []
    for place, row in enumerate(rows):
        clip: Clip = store.clips[place]
        if place in store.bad:
            table.bad.add(row, store.bad[place])
        elif clip.clamp and clip.start + store.frames[place] < (clip.stop or 0):
            cut.append(row)
    if cut:
        table.note(table.lines[cut[0]], f"{len(cut):,} spans go beyond the end of their files, and are cut there")
    for place, what in store.notes():
        table.note(table.lines[rows[place]], what)


def _targets(
    table: Table, layout: Layout, target: str | None, needed: bool, count: int
) -> tuple[list[str], list[tuple[str, ...]]]:
    """Targets, and further references of each row."""
    name = target or next((name for name in layout.targets if name in table.columns), None)
    if name or needed:
        found, others = read_targets(table, name or layout.targets[0], count)
        return list(found), list(others)
    return [""] * count, [()] * count


def _groups(table: Table, layout: Layout, count: int, named: tuple[str, ...]) -> list[Group]:
    """The groups of the rows; columns that hold something else name none."""
    return list(table.groups(count, (layout.file, *layout.targets, layout.prompt, *named, *_IDS)))


def _optional(table: Table, name: str) -> list[str]:
    return list(table.text(name)) if name and name in table.columns else []


def ids_of(rows: ManifestRows) -> list[str]:
    """Names of the examples: of their own column, else of their files."""
    table, layout = rows.table, rows.layout
    named = next((name for name in _IDS if name in table.columns), None)
    if named is not None and (named == "id" or named == layout.file or layout.holds):
        return list(table.text(named))
    names = list(table.text(layout.file))
    if layout.holds:
        return [str(line) for line in table.lines]
    return [_stem(name) for name in names] if not layout.bare else names


def _tell_of_ids(table: Table, count: int) -> None:
    """Note ids that several rows have: they read the same features."""
    named = next((list(table.text(name, count)) for name in _IDS if name in table.columns), [])
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(named):
        rows.setdefault(name, []).append(row)
    several = [found for found in rows.values() if len(found) > 1]
    if several:
        what = f"{len(several):,} ids stand in {sum(map(len, several)):,} rows, such as {named[several[0][0]]!r}"
        table.note(table.lines[several[0][1]], f"{what}: the same features, with a text each")


def _stem(name: str) -> str:
    return PurePosixPath(name.strip().replace("\\", "/")).stem
