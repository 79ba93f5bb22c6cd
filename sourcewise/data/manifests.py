"""Manifests: tables that name a feature file and its target text a row.

Our own layout is a .tsv with `id`, `text` and, to be checked, `n_frames`; the matrix of a row is FOLDER/ID.npy.
The layouts of three other toolkits are read as they are, told apart by the column that names the file:

`signs_file`   slt_how2sign: frames [signs_offset, signs_offset + signs_length), cut at the end of the file as its
               own loader does; text in `translation`
`audio`        fairseq S2T: an .npy file, or ARCHIVE.zip:OFFSET:BYTES for one inside an uncompressed archive; `n_frames`
               is checked; text in `tgt_text`; fields are never quoted
`signal`       multimodalhugs: frames [signal_start, signal_end), where 0 or nothing means the whole; text in `output`,
               prompt in `encoder_prompt`; `decoder_prompt` is not used
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sourcewise.data.examples import Dataset, Example
from sourcewise.data.matrices import Clip, MatrixStore
from sourcewise.data.tables import Table, nearest_first, read_columns, read_tsv
from sourcewise.errors import RequestError


@dataclass(frozen=True, slots=True)
class Layout:
    """Which columns of a manifest mean what."""

    name: str
    file: str  # the column that names the file, and tells the layout
    targets: tuple[str, ...]  # the first that is there
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
    """The layout whose file column is among these; None when none is."""
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
) -> Dataset:
    """The examples of a manifest, with their matrices checked (all numbers, when they fit `cache_gb`).

    `features` is the folder of the files; without it a file is looked for where its row says, or where the
    folder usually is: `features/NAME`, `features`, beside the manifest or one folder up. `target` and `prompt`
    name columns instead of the layout's own. Raises RequestError naming the manifest, its line and the file.
    """
    columns = read_columns(path)
    layout = layout_of(columns)
    if layout is None:
        known = ", ".join(sorted(layout.file for layout in LAYOUTS))
        raise RequestError(
            f"{path}: no column that names a feature file (one of {known}); it has: {nearest_first('id', columns)}"
        )
    table = read_tsv(path, layout.literal)
    count = len(table) if limit is None else min(limit, len(table))
    targets = _targets(table, layout, target, need_target)
    prompts = table.text(prompt) if prompt else _optional(table, layout.prompt)
    clips = _clips(table, layout, count, _folders(Path(path), features, layout))
    store = MatrixStore(clips, cache_gb * 1e9)
    ids = table.text("id") if "id" in table.columns else [Path(f).stem for f in table.text(layout.file)]
    examples = [
        Example(ids[i], targets[i], prompts[i] if prompts else "", store.frames[i], table.where(i))
        for i in range(count)
    ]
    return Dataset(examples, name=str(path), dims=store.dims, read=store)


def _targets(table: Table, layout: Layout, target: str | None, needed: bool) -> list[str]:
    name = target or next((name for name in layout.targets if name in table.columns), None)
    if name:
        return table.text(name)
    return table.text(layout.targets[0]) if needed else [""] * len(table)


def _optional(table: Table, name: str) -> list[str]:
    return table.text(name) if name and name in table.columns else []


def _folders(manifest: Path, features: str | Path | None, layout: Layout) -> list[Path]:
    """Where files may lie, likeliest first."""
    if features is not None:
        if not Path(features).is_dir():
            raise RequestError(f"{features}: no such folder; it should hold the .npy files that {manifest} lists")
        return [Path(features)]
    here, name = manifest.parent, manifest.stem
    usual = [root / "features" / part for root in (here, here.parent) for part in (name, "")] + [here]
    # Other toolkits name files from the manifest's folder or the current one.
    return [*usual, here / name] if layout.file == "id" else [here, Path(), *usual]


def _clips(table: Table, layout: Layout, count: int, folders: list[Path]) -> list[Clip]:
    names = table.text(layout.file)[:count]
    numbers = {
        column: _numbers(table, column, count) for column in (layout.frames, layout.start, layout.stop, layout.length)
    }
    folders = _with_files(layout, names, folders)
    clips = []
    for i, name in enumerate(names):
        where = table.where(i)
        if not name:
            raise RequestError(f"{where}: {layout.file} is empty; it should name the example's features")
        start = numbers[layout.start][i] or 0
        length = numbers[layout.length][i]
        stop = start + length if length else numbers[layout.stop][i] or None  # 0 means to the end
        file, span = (f"{name}.npy", None) if layout.file == "id" else _file_and_span(name, where)
        path = _found(file, folders)
        clips.append(Clip(path, where, start, stop, layout.clamp, numbers[layout.frames][i], span))
    return clips


def _numbers(table: Table, column: str, count: int) -> list[int | None]:
    """A column of whole numbers; empty cells, and a column that is not there, are None."""
    if column not in table.columns:
        return [None] * count
    found: list[int | None] = []
    for i, text in enumerate(table.text(column)[:count]):
        # pandas writes a column of whole numbers with gaps as 12.0
        whole = re.fullmatch(r"(\d+)(\.0*)?", text.strip())
        if text.strip() and whole is None:
            raise RequestError(f"{table.where(i)}: {column} is {text!r}; it should be a whole number of frames")
        found.append(int(whole[1]) if whole else None)
    return found


def _file_and_span(name: str, where: str) -> tuple[str, tuple[int, int] | None]:
    """`x.npy` → itself; `x.zip:OFFSET:BYTES` → the archive and the span of bytes."""
    archive = re.fullmatch(r"(.*\.zip):(\d+):(\d+)", name)
    if archive:
        return archive[1], (int(archive[2]), int(archive[3]))
    if not name.endswith(".npy"):
        raise RequestError(
            f"{where}: {name}: features are read from .npy files, or ARCHIVE.zip:OFFSET:BYTES; extract them first"
        )
    return name, None


def _with_files(layout: Layout, names: list[str], folders: list[Path]) -> list[Path]:
    """For our own layout settle on one folder: the first that holds the first file."""
    if layout.file != "id" or len(folders) == 1 or not names:
        return folders
    return [next((f for f in folders if (f / f"{names[0]}.npy").is_file()), folders[0])]


def _found(file: str, folders: list[Path]) -> Path:
    if len(folders) == 1 and "/" not in file:  # no need to look: opening it tells
        return folders[0] / file
    # Manifests travel: a path of another machine is looked up by its last part.
    tries = [folder / part for part in (file, Path(file).name) for folder in folders]
    return next((path for path in tries if path.is_file()), tries[0])
