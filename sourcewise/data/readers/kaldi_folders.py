"""Folders of Kaldi and ESPnet: `text`, `feats.scp` or `wav.scp`, and if there `segments`, `utt2spk`, `utt2num_frames`.

Commands in a scp (lines that end in `|`) are never run: their rows are bad.
"""

from __future__ import annotations

from pathlib import Path

from sourcewise.data.readers.lines import read_lines
from sourcewise.data.readers.tables import Table
from sourcewise.errors import FaultyData, RequestError

SCPS = ("feats.scp", "wav.scp")


def is_kaldi_folder(path: Path) -> bool:
    """Whether a folder lists its features or recordings as Kaldi does."""
    return path.is_dir() and any((path / name).is_file() for name in SCPS)


def read_kaldi_folder(path: Path) -> Table:
    """The rows of a folder: id, the place of its features, text and speaker. Raises RequestError."""
    scp = next(name for name in SCPS if (path / name).is_file())
    places, lines = _read(path / scp)
    texts, _ = _read(path / "text") if (path / "text").is_file() else ({}, {})
    recordings, listing = dict(places), path / scp
    if scp == "wav.scp" and (path / "segments").is_file():
        listing = path / "segments"
        segments, lines = _read(listing)
        places = {name: _segment(recordings, cell) for name, cell in segments.items()}
    ids = [*places, *(name for name in texts if name not in places)]
    columns = {"id": ids, scp: [places.get(name, "") for name in ids]}
    if texts:
        columns["text"] = [texts.get(name, "") for name in ids]
    others = {"speaker": "utt2spk", "utt2num_frames": "utt2num_frames"}
    for column, name in others.items():
        if (path / name).is_file():
            found, _ = _read(path / name)
            columns[column] = [found.get(each, "") for each in ids]
    table = Table(str(listing), dict(columns), [lines.get(name, 0) for name in ids])
    _find_bad(table, path, scp)
    return table


def _find_bad(table: Table, path: Path, scp: str) -> None:
    """Record texts without features, segments without a recording, and commands as bad rows."""
    for row, name in enumerate(table.columns["id"]):
        place = table.columns[scp][row]
        if table.lines[row] == 0:
            kind = f"a text without features in {scp}"
            table.bad.add(row, FaultyData(f"{path / 'text'}: {name}: {kind}", kind))
        elif not place and table.name.endswith("segments"):
            kind = "a segment without times, or of a recording that wav.scp lacks"
            table.bad.add(row, FaultyData(f"{table.where(row)}: {name}: {kind}", kind))
        elif place.rstrip().endswith("|"):
            kind = "a command, which is never run"
            what = f"{table.where(row)}: {name}: {kind}; write the recordings to files and name these"
            table.bad.add(row, RequestError(what, kind))
            table.columns[scp][row] = ""


def _read(path: Path) -> tuple[dict[str, str], dict[str, int]]:
    """First word of each line → the rest, and → the line's number. Raises RequestError for a word twice."""
    found: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        name, *rest = line.split(maxsplit=1)
        if name in found:
            raise RequestError(f"{path}:{number}: {name!r} is there twice (line {lines[name]}); each id has one line")
        found[name], lines[name] = rest[0].strip() if rest else "", number
    return found, lines


def _segment(recordings: dict[str, str], cell: str) -> str:
    """`RECORDING START END` in seconds as a place in its file; "" where it is none."""
    parts = cell.split()
    place = recordings.get(parts[0], "") if parts else ""
    if len(parts) != 3 or not place:
        return ""
    return place if place.rstrip().endswith("|") else f"{place}[{parts[1]}:{parts[2]}]"
