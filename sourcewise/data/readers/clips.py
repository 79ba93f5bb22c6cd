"""Finds the clip of each row of a manifest: in a folder, in a file of many, by a pattern, or in the row itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sourcewise.data.formats.npy import NPY
from sourcewise.data.formats.registry import TIMED, ending_of, formats, open_store
from sourcewise.data.formats.store import Rows, Store
from sourcewise.data.readers.feature_files import NO_FILE, FileFinder, FoundFiles
from sourcewise.data.readers.layouts import Layout
from sourcewise.data.readers.matrices import Clip
from sourcewise.data.readers.places import Place, filled, is_pattern, parse_place
from sourcewise.data.readers.spans import read_numbers, read_spans
from sourcewise.data.readers.tables import Table
from sourcewise.errors import RequestError

_SAMPLE = 64  # names from which the ending of the files is inferred


@dataclass(slots=True)
class Clips:
    """Row → clip; rows without one are recorded as bad in the table. `stores` are files that are open already."""

    of: dict[int, Clip] = field(default_factory=dict)
    stores: dict[Path, Store] = field(default_factory=dict)


def find_clips(table: Table, layout: Layout, count: int, features: str | Path | None) -> Clips:
    """The clips of the first `count` rows of a manifest, in the folder, file or pattern `features`.

    Raises RequestError where none can be found at all.
    """
    named = _named(table, layout, count)
    if features is not None and is_pattern(features):
        places = {row: parse_place(filled(features, name)) for row, name in named.items()}
        return _in_folders(table, layout, count, places, [Path()], bare=False)
    if features is not None and not Path(features).is_dir():
        return _in_one_file(table, layout, count, named, Path(features))
    places = {row: Place(name) if layout.bare else parse_place(name) for row, name in named.items()}
    folders = _folders(Path(table.name), features, layout)
    if layout.folder:
        places = {row: Place(f"{each.file[: layout.folder]}/{_stem(each.file)}") for row, each in places.items()}
    return _in_folders(table, layout, count, places, folders, bare=layout.bare)


def in_the_rows(table: Table, layout: Layout, count: int, matrices: Store) -> Clips:
    """The clips of rows that hold their matrices."""
    there, path = set(matrices.keys()), Path(table.name)
    spans, frames = read_spans(table, layout, count), read_numbers(table, layout.frames, count)
    found = Clips(stores={path: matrices})
    for row in range(count):
        if str(row) in there:
            found.of[row] = Clip(path, table.where(row), *spans[row], layout.clamp, frames[row], None, str(row))
        else:
            problem = f"{layout.file} holds no matrix"
            table.bad.add(row, RequestError(f"{table.where(row)}: {problem}", problem))
    return found


def _named(table: Table, layout: Layout, count: int) -> dict[int, str]:
    """Row → its cell that names the features; rows with an empty one are bad."""
    named = dict(enumerate(table.text(layout.file, count)))
    for row in [row for row, name in named.items() if not name.strip()]:
        problem = f"{layout.file} is empty"
        wrong = f"{table.where(row)}: {problem}; it should name the example's features"
        table.bad.add(row, RequestError(wrong, problem))
        del named[row]
    return named


def _in_one_file(table: Table, layout: Layout, count: int, named: dict[int, str], path: Path) -> Clips:
    """Clips by key, or, where the file holds one array without such keys, as rows in the order of the manifest."""
    if not path.is_file():
        raise RequestError(f"{path}: no such folder; it should hold the .npy files that {table.name} lists")
    if not ending_of(path.name):
        raise RequestError(f"{path}: no folder; features are a folder, or a file in {', '.join(formats())}")
    try:
        store = open_store(path)
        keys = store.keys()
        by_key = bool(set(keys) & set(named.values()))
        if not by_key and len(keys) == 1:
            store = Rows(store, keys[0])
            _check_rows(table, path, store)
            named = {row: str(row) for row in named}
            by_key = True
    except (ValueError, OSError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise RequestError(f"{path}: {said}") from None
    frames, spans = read_numbers(table, layout.frames, count), read_spans(table, layout, count)
    found = Clips(stores={path: store})
    for row, name in named.items():
        found.of[row] = Clip(path, table.where(row), *spans[row], layout.clamp, frames[row], None, name)
    return found


def _check_rows(table: Table, path: Path, store: Rows) -> None:
    count = len(store.keys())
    if count != len(table):
        raise ValueError(
            f"is one array of {count:,} rows, and {table.name} has {len(table):,}; they must be as many, in one order, "
            "or the file should have a key for each id"
        )
    table.note(table.lines[0], f"row i of {path.name} is taken for row i of the manifest, since it has no keys")


def _folders(manifest: Path, features: str | Path | None, layout: Layout) -> list[Path]:
    """Folders that may hold the files, the likeliest first."""
    if features is not None:
        return [Path(features)]
    here, name = (manifest if manifest.is_dir() else manifest.parent), manifest.stem
    usual = [root / "features" / part for root in (here, here.parent) for part in (name, "")] + [here]
    # Other toolkits name files from the manifest's folder or the current one.
    return [*usual, here / name] if layout.file == "id" else [here, Path(), *usual, here / "clips", here.parent.parent]


def _in_folders(
    table: Table, layout: Layout, count: int, places: dict[int, Place], folders: list[Path], *, bare: bool
) -> Clips:
    names = [place.file for place in places.values()]
    ending = _usual_ending(names, folders) if bare else NPY
    finder = FileFinder(folders, bare=bare, ending=ending)
    found = finder.find(names)
    _tell_of_files(table, {row: place.file for row, place in places.items()}, found)
    if bare:
        _tell_of_others(table, names, found, ending)
    spans, frames = read_spans(table, layout, count), read_numbers(table, layout.frames, count)
    clips = Clips()
    for row, place in places.items():
        where, path = table.where(row), found.paths[place.file]
        span = (place.start, place.stop) if place.start or place.stop else spans[row]
        key = place.key
        if layout.timed and any(span) and ending_of(path.name) in TIMED:
            key, span = f"{span[0] / 1000}:{'' if span[1] is None else span[1] / 1000}", (0, None)
        clip = Clip(path, where, *span, layout.clamp, frames[row], place.span, key)
        if place.file not in found.wrong:
            clips.of[row] = clip
        elif bare or ending_of(place.file) or place.span:
            table.bad.add(row, clip.wrong(found.wrong[place.file], "no such file"))
        else:
            remark = f"features are read from {', '.join(formats())}, or ARCHIVE.zip:OFFSET:BYTES; extract them first"
            remark += found.wrong[place.file].removeprefix(NO_FILE)
            table.bad.add(row, RequestError(f"{where}: {place.file}: {remark}", "no file of features"))
    return clips


def _usual_ending(names: Sequence[str], folders: Sequence[Path]) -> str:
    """The ending of the files of these names: of most of them, else of most files of the folders; else .npy."""
    sample = list(names)[:: max(1, len(names) // _SAMPLE)]
    counts = dict.fromkeys(formats(), 0)
    for ending in counts:
        for folder in folders:
            counts[ending] = max(counts[ending], sum(_is_file(folder / (name + ending)) for name in sample))
    if not any(counts.values()):
        for folder in folders:
            if folder.is_dir():
                for path in list(folder.iterdir())[: 50 * _SAMPLE]:
                    if ending := ending_of(path.name):
                        counts[ending] += 1
    return max(counts, key=counts.__getitem__)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a name, or a NUL in it
        return False


def _tell_of_files(table: Table, files: dict[int, str], found: FoundFiles) -> None:
    if found.dropped and len(found.wrong) < len(found.paths):
        row = next(row for row, name in files.items() if name not in found.wrong)
        remark = f"leading folders of its file names are not here: {files[row]} is read from {found.paths[files[row]]}"
        table.note(table.lines[row], remark)
    if found.respelled:
        name = found.respelled[0]
        row = next(row for row, other in files.items() if other == name)
        remark = (
            f"{len(found.respelled):,} names are spelled otherwise than their files: {found.paths[name]} is {name!r}"
        )
        table.note(table.lines[row], remark)


def _tell_of_others(table: Table, names: Sequence[str], found: FoundFiles, ending: str) -> None:
    """Note files of the same names with other endings, which are not read."""
    beside: dict[str, int] = {}
    listed: dict[Path, set[str]] = {}
    for path in {found.paths[name] for name in names if name not in found.wrong}:
        if not path.name.lower().endswith(ending):
            continue
        if path.parent not in listed:
            listed[path.parent] = {entry.name for entry in path.parent.iterdir()}
        stem = path.name[: -len(ending)]
        for other in formats():
            if other != ending and stem + other in listed[path.parent]:
                beside[other] = beside.get(other, 0) + 1
    for other, count in beside.items():
        told = f"{count:,} of {len(names):,} names have a file in {other}, too: {ending} is read"
        remark = f"{told}; `features: FOLDER/{{id}}{other}` reads the other"
        table.note(table.lines[0], remark)


def _stem(name: str) -> str:
    return Path(name.strip().replace("\\", "/")).stem
