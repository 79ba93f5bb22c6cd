"""The rows of a manifest, whatever it is: a table, a pickle, Parquet or Arrow, shards, a folder of Kaldi's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sourcewise.data.readers.columns import ARROW, holds_matrices, read_arrow, read_shards
from sourcewise.data.readers.delimited import DELIMITED, Quoting, read_header
from sourcewise.data.readers.kaldi_folders import is_kaldi_folder, read_kaldi_folder
from sourcewise.data.readers.layouts import LAYOUTS, TEXTS, Layout, layout_of
from sourcewise.data.readers.records import ENDINGS, Records, are_records, read_records
from sourcewise.data.readers.shards import holds_features, is_shard
from sourcewise.data.readers.tables import Table, listed, read_table, read_tsv
from sourcewise.errors import RequestError

_SSVP = ("video_name", "length", "label")  # of ssvp_slt's manifests, which have no header


@dataclass(slots=True)
class ManifestRows:
    """A manifest's table, the meaning of its columns, and the columns that hold their matrices."""

    records: Records
    layout: Layout

    @property
    def table(self) -> Table:
        """The rows."""
        return self.records.table


def are_rows(path: Path) -> bool:
    """Whether a file or folder is a manifest by itself, such as a pickle of records; a table tells by its columns."""
    if path.is_dir():
        return is_kaldi_folder(path)
    return holds_features(path) if is_shard(path) else holds_matrices(path) or are_records(path)


def read_rows(path: Path, quoting: Quoting = "auto", file: str | None = None) -> ManifestRows:
    """The rows of a manifest; `file` names the column of the features instead of the layout's own.

    Raises RequestError for what cannot be read, and where no column names or holds features.
    """
    records = _records(path, quoting, file)
    columns = list(records.table.columns)
    layout = _layout(path, columns, list(records.matrices), file)
    if layout is None or (file and file not in columns):
        what = f"no column {file!r}" if file else f"no column that names a feature file (one of {_known()})"
        hint = "" if file else "; `file: COLUMN` names another"
        raise RequestError(f"{path}: {what}; it has: {listed(columns)}{hint}")
    return ManifestRows(records, layout)


def _layout(path: Path, columns: Sequence[str], holding: Sequence[str], file: str | None) -> Layout | None:
    """The layout of columns; of a file that holds matrices in one column only, that column is the features."""
    layout = layout_of(columns, holding, file)
    if file or not holding or (layout is not None and layout.holds):
        return layout
    if len(holding) > 1:
        raise RequestError(f"{path}: {listed(holding)} hold matrices; `file: COLUMN` says which are the features")
    return Layout(holding[0], holding[0], TEXTS, frames="n_frames", holds=True)


def _known() -> str:
    alone = [each for each in LAYOUTS if not (each.any_of or each.holds or "." in each.file)]
    return ", ".join(sorted({each.file for each in alone if each.file == "id" or not each.bare}))


def _records(path: Path, quoting: Quoting, file: str | None) -> Records:
    ending = path.suffix.lower()
    if path.is_dir():
        if not is_kaldi_folder(path):
            raise RequestError(f"{path}: a folder without feats.scp or wav.scp; name the manifest itself")
        return Records(read_kaldi_folder(path))
    if is_shard(path):
        return read_shards(path)
    if ending in ARROW:
        return read_arrow(path)
    if ending not in DELIMITED:
        held = path.name.lower().endswith(ENDINGS) or are_records(path)
        return read_records(path) if held else Records(read_table(path, quoting))
    columns = read_header(path)
    if file is None and is_ssvp(columns):
        return Records(_read_ssvp(path))
    layout = layout_of(columns, (), file)
    if layout is None:
        raise RequestError(
            f"{path}: no column that names a feature file (one of {_known()}); it has: {listed(columns)}; "
            "`file: COLUMN` names another"
        )
    return Records(read_tsv(path, "text" if layout.literal else quoting))


def is_ssvp(columns: Sequence[str]) -> bool:
    """Whether a header is none, but the first row of a manifest of ssvp_slt: name, length, label."""
    if len(columns) != len(_SSVP) or layout_of(columns) is not None:
        return False
    try:
        return float(columns[1]) >= 0 and bool(columns[0].strip())
    except ValueError:
        return False


def _read_ssvp(path: Path) -> Table:
    """The rows of a manifest without a header."""
    from sourcewise.data.readers.lines import read_lines

    rows = [(number, line.split("\t")) for number, line in enumerate(read_lines(path), 1) if line.strip()]
    table = Table(str(path), {name: [] for name in _SSVP}, [number for number, _ in rows])
    for row, (_, cells) in enumerate(rows):
        if len(cells) != len(_SSVP):
            problem = f"{table.where(row)}: {len(cells)} cells; name, length and label are {len(_SSVP)}"
            table.bad.add(row, RequestError(problem, "not as many fields as the others"))
        for name, cell in zip(_SSVP, [*cells, "", ""], strict=False):
            table.columns[name].append(cell)
    table.note(table.lines[0], "no header: read as a manifest of ssvp_slt (name, length, label); length is not checked")
    return table
