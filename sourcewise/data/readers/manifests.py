"""Manifests: tables with a feature file and its target text per row.

Our own layout is a .tsv or .csv with `id`, `text` and, for checks, `n_frames`; the matrix of a row is FOLDER/ID.npy.
Layouts of three other toolkits are recognised by the column that names the file:

`signs_file`   slt_how2sign: frames [signs_offset, signs_offset + signs_length), cut at the end of the file as its
               own loader does, which is noted; text in `translation`
`audio`        fairseq S2T: an .npy file, or ARCHIVE.zip:OFFSET:BYTES for one inside an uncompressed archive; `n_frames`
               is checked; text in `tgt_text`; fields are never quoted
`signal`       multimodalhugs: frames [signal_start, signal_end); as in its own reader a start of 0 or nothing is that
               of the file, an end of 0 or nothing its end; text in `output`, prompt in `encoder_prompt`;
               `decoder_prompt` is not used

A row is bad if its span is empty or begins beyond the end of the file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sourcewise.data.examples import Dataset, Example
from sourcewise.data.readers.delimited import Quoting, read_header
from sourcewise.data.readers.feature_files import NO_FILE, FileFinder, FoundFiles
from sourcewise.data.readers.matrices import Clip, MatrixStore
from sourcewise.data.readers.several import read_targets
from sourcewise.data.readers.tables import Table, listed, read_tsv
from sourcewise.errors import FaultyData, RequestError


@dataclass(frozen=True, slots=True)
class Layout:
    """The meaning of a manifest's columns."""

    name: str
    file: str  # the column that names the file, and identifies the layout
    targets: tuple[str, ...]  # columns of targets; the first existing one is used
    prompt: str = ""
    frames: str = ""  # a count to check
    start: str = ""
    stop: str = ""
    length: str = ""
    clamp: bool = False
    literal: bool = False  # fields are never quoted


LAYOUTS = (
    Layout("slt_how2sign", "signs_file", ("translation",), start="signs_offset", length="signs_length", clamp=True),
    Layout("fairseq S2T", "audio", ("tgt_text",), frames="n_frames", literal=True),
    Layout("multimodalhugs", "signal", ("output",), prompt="encoder_prompt", start="signal_start", stop="signal_end"),
    Layout("sourcewise", "id", ("text", "target"), frames="n_frames"),
)


def layout_of(columns: Sequence[str]) -> Layout | None:
    """The layout whose file column is among `columns`; None if there is none."""
    return next((layout for layout in LAYOUTS if layout.file in columns), None)


def read_manifest(
    path: str | Path,
    features: str | Path | None = None,
    *,
    target: str | None = None,
    prompt: str | None = None,
    need_target: bool = True,
    limit: int | None = None,
    cache_gb: float = 4.0,
    quoting: Quoting = "auto",
    skip_bad: bool = False,
    languages: tuple[str, str] = ("", ""),
) -> Dataset:
    """The examples of a manifest, with checked matrices (all their numbers, if they fit into `cache_gb`).

    `features` is the folder of the files; by default it is the one that the row names, or a usual one: `features/NAME`,
    `features`, beside the manifest or one folder up. `target` and `prompt` name columns instead of the layout's own.
    Raises RequestError that counts the bad rows and names manifest, line and file of the first; with `skip_bad` bad
    rows are skipped and noted. `languages` are those of prompts and targets, or `column:NAME`.
    """
    layout = _layout(path)
    table = read_tsv(path, "text" if layout.literal else quoting)
    count = len(table) if limit is None else min(limit, len(table))
    targets, others = _targets(table, layout, target, need_target, count)
    prompts = table.text(prompt, count) if prompt else _optional(table, layout.prompt)
    clips = _clips(table, layout, count, _folders(Path(path), features, layout))
    store = MatrixStore(list(clips.values()), cache_gb * 1e9)
    places = {row: place for place, row in enumerate(clips)}
    _look_at_matrices(table, clips, store)
    wheres, spoken = table.wheres(count), table.languages(languages, count)
    if need_target:
        table.bad.add_blank(targets, wheres, "the target is empty", "every example needs a text to produce")
    kept, left_out = table.bad.settle(wheres, skip_bad)
    ids = table.text("id") if "id" in table.columns else [_stem(name) for name in table.text(layout.file)]
    groups = table.groups(count, (layout.file, *layout.targets, layout.prompt, target or "", prompt or "", "id"))
    examples = [
        Example(
            ids[i],
            targets[i],
            prompts[i] if prompts else "",
            store.frames[places[i]],
            wheres[i],
            others=others[i],
            languages=spoken[i],
            group=groups[i],
        )
        for i in kept
    ]
    notes = [*table.notes, *left_out]
    return Dataset(examples, str(path), store.dims, lambda k: store(places[kept[k]]), notes=notes)


def target_texts(path: str | Path, target: str | None = None, quoting: Quoting = "auto") -> list[str]:
    """The target texts of a manifest; features are not looked at. Raises RequestError."""
    layout = _layout(path)
    table = read_tsv(path, "text" if layout.literal else quoting)
    return _targets(table, layout, target, True, len(table))[0]


def _layout(path: str | Path) -> Layout:
    columns = read_header(path)
    layout = layout_of(columns)
    if layout is None:
        known = ", ".join(sorted(layout.file for layout in LAYOUTS))
        raise RequestError(f"{path}: no column that names a feature file (one of {known}); it has: {listed(columns)}")
    return layout


def _look_at_matrices(table: Table, clips: dict[int, Clip], store: MatrixStore) -> None:
    """Record rows without a usable matrix as bad, and note spans that were cut."""
    cut = []
    for place, (row, clip) in enumerate(clips.items()):
        if place in store.bad:
            table.bad.add(row, store.bad[place])
        elif clip.clamp and clip.start + store.frames[place] < (clip.stop or 0):
            cut.append(row)
    if cut:
        table.note(table.lines[cut[0]], f"{len(cut):,} spans go beyond the end of their files, and are cut there")


def _targets(
    table: Table, layout: Layout, target: str | None, needed: bool, count: int
) -> tuple[list[str], list[tuple[str, ...]]]:
    """Targets, and further references of each row."""
    name = target or next((name for name in layout.targets if name in table.columns), None)
    if name or needed:
        return read_targets(table, name or layout.targets[0], count)
    return [""] * count, [()] * count


def _optional(table: Table, name: str) -> list[str]:
    return table.text(name) if name and name in table.columns else []


def _folders(manifest: Path, features: str | Path | None, layout: Layout) -> list[Path]:
    """Folders that may hold the files, the likeliest first."""
    if features is not None:
        if not Path(features).is_dir():
            raise RequestError(f"{features}: no such folder; it should hold the .npy files that {manifest} lists")
        return [Path(features)]
    here, name = manifest.parent, manifest.stem
    usual = [root / "features" / part for root in (here, here.parent) for part in (name, "")] + [here]
    # Other toolkits name files from the manifest's folder or the current one.
    return [*usual, here / name] if layout.file == "id" else [here, Path(), *usual]


def _clips(table: Table, layout: Layout, count: int, folders: list[Path]) -> dict[int, Clip]:
    """Row → clip; rows without a file are recorded as bad."""
    named = dict(enumerate(table.text(layout.file, count)))
    archives = {row: _archive(name) for row, name in named.items()}
    files = {row: archives[row][0] for row, name in named.items() if name.strip()}
    for row in named.keys() - files.keys():
        problem = f"{layout.file} is empty"
        wrong = f"{table.where(row)}: {problem}; it should name the example's features"
        table.bad.add(row, RequestError(wrong, problem))
    found = FileFinder(folders, bare=layout.file == "id").find(list(files.values()))
    _tell_of_files(table, files, found)
    spans = _spans(table, layout, count)
    frames = _numbers(table, layout.frames, count)
    clips = {}
    for row, name in files.items():
        where, path = table.where(row), found.paths[name]
        clip = Clip(path, where, *spans[row], layout.clamp, frames[row], archives[row][1])
        if name not in found.wrong:
            clips[row] = clip
        elif layout.file == "id" or name.strip().lower().endswith((".npy", ".zip")):
            table.bad.add(row, clip.wrong(found.wrong[name], "no such file"))
        else:
            remark = "features are read from .npy files, or ARCHIVE.zip:OFFSET:BYTES; extract them first"
            remark += found.wrong[name].removeprefix(NO_FILE)
            table.bad.add(row, RequestError(f"{where}: {named[row]}: {remark}", "no .npy file"))
    return clips


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


def _spans(table: Table, layout: Layout, count: int) -> list[tuple[int, int | None]]:
    """(start, stop) of each row; stop None: the end of the file."""
    starts, stops, lengths = (_numbers(table, c, count) for c in (layout.start, layout.stop, layout.length))
    if layout.length in table.columns and any(x is not None for x in (*starts, *lengths)):
        for row in range(count):
            empty = next((c for c, of in ((layout.start, starts), (layout.length, lengths)) if of[row] is None), None)
            if empty:
                what = f"{empty} is empty" if empty in table.columns else f"there is no column {empty}"
                table.bad.add(row, FaultyData(f"{table.where(row)}: {what}", what))
        return [(start or 0, (start or 0) + (length or 0)) for start, length in zip(starts, lengths, strict=True)]
    to_end = [row for row in range(count) if starts[row] and not stops[row]]
    if to_end:
        end = f"{layout.stop} 0 or nothing" if layout.stop else f"no {layout.length}"
        remark = f"{len(to_end):,} spans with a start and {end}: read to the end of the file"
        table.note(table.lines[to_end[0]], remark)
    return [(start or 0, stop or None) for start, stop in zip(starts, stops, strict=True)]


def _numbers(table: Table, column: str, count: int) -> list[int | None]:
    """A column of whole numbers; None for empty cells and for a missing column. Other cells make their rows bad."""
    if column not in table.columns:
        return [None] * count
    found: list[int | None] = []
    for i, text in enumerate(table.text(column, count)):
        # pandas writes 12.0 in columns of whole numbers with missing values
        whole = re.fullmatch(r"([0-9]+)(\.0*)?", text.strip())
        if text.strip() and whole is None:
            problem = f"{table.where(i)}: {column} is {text!r}; it should be a whole number of frames"
            table.bad.add(i, RequestError(problem, f"{column} is no whole number"))
        found.append(int(whole[1]) if whole else None)
    return found


def _archive(name: str) -> tuple[str, tuple[int, int] | None]:
    """`x.npy` → itself; `x.zip:OFFSET:BYTES` → the archive and the span of bytes."""
    archive = re.fullmatch(r"(.*\.zip):(\d+):(\d+)", name)
    return (archive[1], (int(archive[2]), int(archive[3]))) if archive else (name, None)


def _stem(name: str) -> str:
    return PurePosixPath(name.strip().replace("\\", "/")).stem
